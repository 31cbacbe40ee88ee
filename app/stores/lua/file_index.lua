-- Scores are expiry times, so what was forgotten here leaves by itself.
local now = now_ms()
for i, key in ipairs({files, uploaders}) do
  redis.call('ZREMRANGEBYSCORE', key, '-inf', int(now))
  redis.call('ZADD', key, expires, i == 1 and file_id or user)
  redis.call('PEXPIRE', key, ttl)
end
