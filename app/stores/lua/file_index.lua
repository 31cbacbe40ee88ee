-- KEYS the user's files, the root's uploaders of that name. ARGV file, user, expiry, ttl
-- Scores are expiry times, so what was forgotten here leaves by itself.
for i, key in ipairs(KEYS) do
  redis.call('ZREMRANGEBYSCORE', key, '-inf', int(now_ms()))
  redis.call('ZADD', key, ARGV[3], ARGV[i])
  redis.call('PEXPIRE', key, ARGV[4])
end
