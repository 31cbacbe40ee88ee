-- A portion: a root can have a hundred thousand owners, and Redis and its callers wait while more is read.
local found, rows = {}, 0
for i, of_day in ipairs(of_days) do
  rows = rows + redis.call('HLEN', usage .. of_day)
  if rows > most and not (whole and i == 1) then break end
  found[i] = redis.call('HGETALL', usage .. of_day)
end
return found
