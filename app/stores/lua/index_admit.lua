-- KEYS user's sessions, all sessions, all users, all that is kept of the user, the root's users of that name
-- ARGV session, user, ttl, tombstone, per user, total, users, one of the user's that is over ('' if none)
-- Scores are expiry times, so what was forgotten here leaves by itself.
-- -> {'ok'} | {'evict', now, {own session, its score, ...} least recently active first} | {'full'}
-- What is over leaves in the same step in which the newcomer enters: of two that come for one place one gets it, and
-- the other is told what there is now.
local own, sessions, users, kept, namesakes = unpack(KEYS)
local session, user, over = ARGV[1], ARGV[2], ARGV[8]
local now, ttl, tombstone = now_ms(), tonumber(ARGV[3]), tonumber(ARGV[4])
for _, key in ipairs(KEYS) do redis.call('ZREMRANGEBYSCORE', key, '-inf', int(now)) end
if over ~= '' then
  redis.call('ZREM', own, over)
  redis.call('ZREM', sessions, over)
end
if not redis.call('ZSCORE', own, session) then
  local mine = redis.call('ZCARD', own)
  local full = redis.call('ZCARD', sessions) >= tonumber(ARGV[6])
  if mine >= tonumber(ARGV[5]) or (mine > 0 and full) then
    return {'evict', int(now), redis.call('ZRANGE', own, 0, -1, 'WITHSCORES')}
  end
  if full or (not redis.call('ZSCORE', users, user) and redis.call('ZCARD', users) >= tonumber(ARGV[7])) then
    redis.call('ZREM', users, user) -- who has sessions and is refused is not there
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
