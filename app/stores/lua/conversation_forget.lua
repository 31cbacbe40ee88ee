-- KEYS the name's conversations. ARGV user ('' = all of that name), prefix of records -> how many went
local gone = 0
for _, member in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  local user, record = string.match(member, '^([^:]+):(.+)$')
  if ARGV[1] == '' or ARGV[1] == user then
    redis.call('DEL', ARGV[2] .. record)
    redis.call('ZREM', KEYS[1], member)
    gone = gone + 1
  end
end
return gone
