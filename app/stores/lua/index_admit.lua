-- KEYS user's sessions, all sessions, all users. ARGV session, user, ttl, per user, total, users
-- Scores are expiry times, so what was forgotten here leaves by itself.
-- -> {'ok'} | {'evict', own sessions, least recently active first} | {'full'}
local now, ttl = now_ms(), tonumber(ARGV[3])
for _, key in ipairs(KEYS) do redis.call('ZREMRANGEBYSCORE', key, '-inf', int(now)) end
local known = redis.call('ZSCORE', KEYS[1], ARGV[1])
if not known then
  local own = redis.call('ZCARD', KEYS[1])
  if own >= tonumber(ARGV[4]) or (own > 0 and redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[5])) then
    return {'evict', redis.call('ZRANGE', KEYS[1], 0, -1)}
  end
  if redis.call('ZCARD', KEYS[2]) >= tonumber(ARGV[5]) then return {'full'} end
  if not redis.call('ZSCORE', KEYS[3], ARGV[2]) and redis.call('ZCARD', KEYS[3]) >= tonumber(ARGV[6]) then
    return {'full'}
  end
end
redis.call('ZADD', KEYS[1], int(now + ttl), ARGV[1])
redis.call('ZADD', KEYS[2], int(now + ttl), ARGV[1])
redis.call('ZADD', KEYS[3], int(now + ttl), ARGV[2])
for _, key in ipairs(KEYS) do redis.call('PEXPIRE', key, ARGV[3]) end
return {'ok'}
