-- What is gone is never revived here.
local expires, lost = now_ms() + lease, {}
for _, member in ipairs(members) do
  if redis.call('ZSCORE', leases, member) then
    redis.call('ZADD', leases, 'XX', int(expires), member)
  else
    lost[#lost + 1] = member
  end
end
if #lost < #members then live_at_least(leases, lease + DAY) end
return lost
