-- Scores are expiry times, so what was forgotten here leaves by itself.
local now = now_ms()
for i, key in ipairs({files, uploaders}) do
  forget_late(key, '-inf', now, LATE)
  redis.call('ZADD', key, int(now + ttl), i == 1 and file_id or user)
  redis.call('PEXPIRE', key, ttl)
end
