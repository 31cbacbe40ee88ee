-- KEYS leases. ARGV lease, member, ... -> the members that are gone. What is gone is never revived here.
local expires, lost = now_ms() + tonumber(ARGV[1]), {}
for i = 2, #ARGV do
  if redis.call('ZSCORE', KEYS[1], ARGV[i]) then
    redis.call('ZADD', KEYS[1], 'XX', int(expires), ARGV[i])
  else
    lost[#lost + 1] = ARGV[i]
  end
end
if #lost < #ARGV - 1 then live_at_least(KEYS[1], tonumber(ARGV[1]) + DAY) end
return lost
