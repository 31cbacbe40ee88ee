-- What is gone is never revived here. A run that was thrown away, since memory was short, is as bad as a lease: nobody
-- could go on with the chat, so its owner is told while there is one.
local expires, lost, held = now_ms() + lease, {}, 0
for _, member in ipairs(members) do
  local there = redis.call('ZSCORE', leases, member)
  if there then
    redis.call('ZADD', leases, 'XX', int(expires), member)
    held = held + 1
  end
  if not there or redis.call('EXISTS', runs .. string.match(member, '^(.*):')) == 0 then lost[#lost + 1] = member end
end
if held > 0 then live_at_least(leases, lease + DAY) end
return lost
