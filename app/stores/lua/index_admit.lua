-- KEYS user's sessions, all sessions, all users, all that is kept of the user, the root's users of that name
-- ARGV session, user, ttl, tombstone, per user, total, users
-- Scores are expiry times, so what was forgotten here leaves by itself.
-- -> {'ok'} | {'evict', own sessions, least recently active first} | {'full'}
local own, sessions, users, kept, namesakes = unpack(KEYS)
local session, user = ARGV[1], ARGV[2]
local now, ttl, tombstone = now_ms(), tonumber(ARGV[3]), tonumber(ARGV[4])
for _, key in ipairs(KEYS) do redis.call('ZREMRANGEBYSCORE', key, '-inf', int(now)) end
if not redis.call('ZSCORE', own, session) then
  local mine = redis.call('ZCARD', own)
  local full = redis.call('ZCARD', sessions) >= tonumber(ARGV[6])
  if mine >= tonumber(ARGV[5]) or (mine > 0 and full) then return {'evict', redis.call('ZRANGE', own, 0, -1)} end
  if full then return {'full'} end
  if not redis.call('ZSCORE', users, user) and redis.call('ZCARD', users) >= tonumber(ARGV[7]) then
    return {'full'}
  end
end
for _, key in ipairs({own, sessions}) do redis.call('ZADD', key, int(now + ttl), session) end
redis.call('ZADD', users, int(now + ttl), user)
redis.call('ZADD', kept, int(now + ttl + tombstone), session)
redis.call('ZADD', namesakes, int(now + ttl + tombstone), user)
for _, key in ipairs(KEYS) do
  if redis.call('PTTL', key) < ttl + tombstone then redis.call('PEXPIRE', key, int(ttl + tombstone)) end
end
return {'ok'}
