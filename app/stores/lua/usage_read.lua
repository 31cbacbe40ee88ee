local found = {}
for day = first_day, last_day do
  local owners = {owner}
  if owner == '' then owners = redis.call('SMEMBERS', usage_owners .. root .. ':' .. day) end
  for _, each in ipairs(owners) do
    local rows = redis.call('HGETALL', usage .. each .. ':' .. day)
    if #rows > 0 then found[#found + 1] = {day, rows} end
  end
end
return found
