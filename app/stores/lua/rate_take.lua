-- Token buckets: as many as a minute's worth at once, refilled steadily. Replicas share them. All layers are looked at
-- before any token is taken: who is refused in one layer must not use up what others have in the layers above it.
local now, left, longest, slowest = now_ms(), {}, 0, 0
local all = {user_bucket, owner_bucket, root_bucket, service_bucket}
for layer, bucket in ipairs(all) do
  local rate = tonumber(per_minute[layer])
  if rate > 0 then
    local b = redis.call('HMGET', bucket, 'tokens', 'at')
    local tokens, at = tonumber(b[1] or rate), tonumber(b[2] or now)
    tokens = math.min(rate, tokens + math.max(0, now - at) * rate / 60000)
    local wait = math.ceil(math.max(0, 1 - tokens) * 60000 / rate)
    if wait > longest then longest, slowest = wait, layer - 1 end
    left[layer] = tokens - 1
  end
end
if longest > 0 or not takes then return {longest, slowest} end
for layer, tokens in pairs(left) do
  redis.call('HSET', all[layer], 'tokens', string.format('%.6f', tokens), 'at', int(now))
  redis.call('PEXPIRE', all[layer], '61000')
end
return {0, 0}
