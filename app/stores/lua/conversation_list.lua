redis.call('ZREMRANGEBYSCORE', listed, '-inf', int(now_ms()))
local first = 0
if before ~= '' then
  local rank = redis.call('ZREVRANK', listed, before)
  if not rank then return {0, {}} end
  first = rank + 1
end
local found, digests = {}, redis.call('ZREVRANGE', listed, first, first + limit)
for i = 1, math.min(#digests, limit) do
  -- The version before renews and erases the proof of ownership alone: what is told of it counts only beside that.
  if redis.call('EXISTS', records .. digests[i]) == 1 then
    found[#found + 1] = redis.call('HGETALL', records .. digests[i] .. '.about')
  end
end
return {#digests > limit and 1 or 0, found}
