-- KEYS all sessions, all users. ARGV how many at most
-- -> {sessions, users that were taken out because their time is up, now, {session, its score, ...} that expire soonest}
local now, limit, gone = now_ms(), tonumber(ARGV[1]), {}
for i, key in ipairs(KEYS) do
  local late = redis.call('ZRANGEBYSCORE', key, '-inf', int(now), 'LIMIT', 0, limit)
  if #late > 0 then redis.call('ZREM', key, unpack(late)) end
  gone[i] = #late
end
return {gone[1], gone[2], int(now), redis.call('ZRANGE', KEYS[1], 0, limit - 1, 'WITHSCORES')}
