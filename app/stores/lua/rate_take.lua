-- KEYS bucket. ARGV tokens per minute -> {1, remaining, 0} | {0, remaining, milliseconds until there is enough}
-- A token bucket: as many as a minute's worth at once, refilled steadily. Two replicas share it.
local rate, now = tonumber(ARGV[1]), now_ms()
local b = redis.call('HMGET', KEYS[1], 'tokens', 'at')
local tokens, at = tonumber(b[1] or rate), tonumber(b[2] or now)
tokens = math.min(rate, tokens + math.max(0, now - at) * rate / 60000)
local granted, wait = 0, 0
if tokens >= 1 then
  tokens, granted = tokens - 1, 1
else
  wait = math.ceil((1 - tokens) * 60000 / rate)
end
redis.call('HSET', KEYS[1], 'tokens', string.format('%.6f', tokens), 'at', int(now))
redis.call('PEXPIRE', KEYS[1], '61000')
return {granted, math.floor(tokens), wait}
