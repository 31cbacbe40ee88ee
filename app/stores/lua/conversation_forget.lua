-- A portion: hundreds of thousands in one step would keep Redis from everybody for seconds.
local gone, found = 0, redis.call('ZSCAN', conversations, cursor, 'COUNT', 500)
for i = 1, #found[2], 2 do
  local member = found[2][i]
  local whose, record = string.match(member, '^([^:]+):(.+)$')
  if user == '' or user == whose then
    redis.call('DEL', records .. record)
    redis.call('ZREM', conversations, member)
    redis.call('ZREM', lists .. whose, record)
    gone = gone + 1
  end
end
return {gone, found[1]}
