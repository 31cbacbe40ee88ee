-- KEYS all that is kept of the user, the root's users of that name. ARGV session, user, ttl
-- A session of a single chat: it can be erased with its user, but is neither listed nor counted.
local now, ttl = now_ms(), tonumber(ARGV[3])
for _, key in ipairs(KEYS) do redis.call('ZREMRANGEBYSCORE', key, '-inf', int(now)) end
redis.call('ZADD', KEYS[1], int(now + ttl), ARGV[1])
local known = tonumber(redis.call('ZSCORE', KEYS[2], ARGV[2]) or '0')
if known < now + ttl then redis.call('ZADD', KEYS[2], int(now + ttl), ARGV[2]) end
for _, key in ipairs(KEYS) do
  if redis.call('PTTL', key) < ttl then redis.call('PEXPIRE', key, int(ttl)) end
end
