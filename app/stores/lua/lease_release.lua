-- KEYS leases. ARGV member, ... -> how many were still there. They are for the next one at once.
local released = 0
for _, member in ipairs(ARGV) do
  released = released + redis.call('ZADD', KEYS[1], 'XX', 'CH', 0, member)
end
return released
