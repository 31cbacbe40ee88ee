local now, left = now_ms(), {}
for _, member in ipairs(members) do
  if may_be_opening(index, member, life, opening, now) then
    left[#left + 1] = member
  else
    redis.call('ZREM', index, member)
  end
end
return left
