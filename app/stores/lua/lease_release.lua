-- They are for the next one at once.
local released = 0
for _, member in ipairs(members) do
  released = released + redis.call('ZADD', leases, 'XX', 'CH', 0, member)
end
return released
