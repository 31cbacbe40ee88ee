local gone = 0
for day = first_day, last_day do
  local set = usage_owners .. root .. ':' .. day
  local owners = owner ~= '' and {owner} or redis.call('SMEMBERS', set)
  for _, each in ipairs(owners) do
    local of_day = usage .. each .. ':' .. day
    for _, name in ipairs(redis.call('HKEYS', of_day)) do
      if string.sub(name, 1, #row) == row then gone = gone + redis.call('HDEL', of_day, name) end
    end
    if redis.call('EXISTS', of_day) == 0 then redis.call('SREM', set, each) end
  end
end
return gone
