-- A token bucket: as many as a minute's worth at once, refilled steadily. Two replicas share it.
local now = now_ms()
local b = redis.call('HMGET', bucket, 'tokens', 'at')
local tokens, at = tonumber(b[1] or per_minute), tonumber(b[2] or now)
tokens = math.min(per_minute, tokens + math.max(0, now - at) * per_minute / 60000)
local granted, wait = 0, 0
if tokens >= 1 then
  tokens, granted = tokens - 1, 1
else
  wait = math.ceil((1 - tokens) * 60000 / per_minute)
end
redis.call('HSET', bucket, 'tokens', string.format('%.6f', tokens), 'at', int(now))
redis.call('PEXPIRE', bucket, '61000')
return {granted, math.floor(tokens), wait}
