local now, gone = now_ms(), {}
for i, key in ipairs(KEYS) do
  local late = redis.call('ZRANGEBYSCORE', key, '-inf', int(now), 'LIMIT', 0, limit)
  if #late > 0 then redis.call('ZREM', key, unpack(late)) end
  gone[i] = #late
end
return {gone[1], gone[2], now, redis.call('ZRANGE', sessions, 0, limit - 1, 'WITHSCORES')}
