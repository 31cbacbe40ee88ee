-- Redis itself compares the names, and only those that fit come here. A portion in one step, also of one day: everybody
-- waits for it, and for those of other shards that come with it.
local looked_at = 0
for i, of_day in ipairs(of_days) do
  local key, owner, day = usage .. of_day, string.match(of_day, '^(.*):(%d+)$')
  local more = true
  while more do
    local step = redis.call('HSCAN', key, place, 'MATCH', rows, 'COUNT', PORTION)
    place, looked_at = step[1], looked_at + math.min(PORTION, redis.call('HLEN', key)) + 1
    for n = 1, #step[2], 2 do redis.call('HDEL', key, step[2][n]) end
    more = place ~= '0'
    if looked_at > PORTION and more then return {i - 1, place} end
  end
  if redis.call('EXISTS', key) == 0 then redis.call('SREM', usage_owners .. root .. ':' .. day, owner) end
  if looked_at > PORTION then return {i, place} end
end
return {#of_days, '0'}
