local alive, first = living('ZCOUNT', listed, now_ms()), 0
if before ~= '' then
  local rank = redis.call('ZREVRANK', listed, before)
  if not rank then return {0, {}} end
  first = rank + 1
end
if first >= alive then return {0, {}} end
local found, digests = {}, redis.call('ZREVRANGE', listed, first, math.min(first + limit, alive - 1))
for i = 1, math.min(#digests, limit) do
  -- The version before renews and erases the proof of ownership alone: what is told of it counts only beside that.
  if redis.call('EXISTS', records .. digests[i]) == 1 then
    found[#found + 1] = redis.call('HGETALL', records .. digests[i] .. '.about')
  end
end
return {#digests > limit and 1 or 0, found}
