local found = {}
for day = first_day, last_day do
  local owners = owner ~= '' and {owner} or redis.call('SMEMBERS', usage_owners .. root .. ':' .. day)
  for _, each in ipairs(owners) do
    local rows = redis.call('HGETALL', usage .. each .. ':' .. day)
    if #rows > 0 then found[#found + 1] = {day, rows} end
  end
end
return found
