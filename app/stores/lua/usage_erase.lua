local rows = 0
for i, of_day in ipairs(of_days) do
  local key = usage .. of_day
  rows = rows + redis.call('HLEN', key)
  if i > 1 and rows > PORTION then return i - 1 end
  for _, name in ipairs(redis.call('HKEYS', key)) do
    if string.sub(name, 1, #row) == row then redis.call('HDEL', key, name) end
  end
  if redis.call('EXISTS', key) == 0 then
    local owner, day = string.match(of_day, '^(.*):(%d+)$')
    redis.call('SREM', usage_owners .. root .. ':' .. day, owner)
  end
end
return #of_days
