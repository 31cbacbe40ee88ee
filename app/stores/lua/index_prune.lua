local now, gone = now_ms(), {}
for i, key in ipairs(KEYS) do
  gone[i] = forget_late(key, '-inf', now, limit)
end
return {gone[1], gone[2], now, redis.call('ZRANGE', sessions, 0, limit - 1, 'WITHSCORES')}
