-- A portion: hundreds of thousands in one step would keep Redis from everybody for seconds. What is finished is taken
-- away, so the next one begins in front.
local found = redis.call('ZRANGE', had, 0, 499)
for _, record in ipairs(found) do
  redis.call('DEL', records .. record)
  redis.call('ZREM', conversations, user .. ':' .. record)
  redis.call('ZREM', listed, record)
  redis.call('ZREM', had, record)
end
return #found
