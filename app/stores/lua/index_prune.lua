-- KEYS all sessions, all users. ARGV how many at most -> {sessions, users} that were taken out because their time is up
local now, limit, gone = now_ms(), ARGV[1], {}
for i, key in ipairs(KEYS) do
  local late = redis.call('ZRANGEBYSCORE', key, '-inf', int(now), 'LIMIT', 0, limit)
  if #late > 0 then redis.call('ZREM', key, unpack(late)) end
  gone[i] = #late
end
return gone
