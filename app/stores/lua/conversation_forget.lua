local gone, names = 0, {}
for _, member in ipairs(redis.call('ZRANGE', conversations, 0, -1)) do
  local whose, record = string.match(member, '^([^:]+):(.+)$')
  if user == '' or user == whose then
    redis.call('DEL', records .. record)
    redis.call('ZREM', conversations, member)
    names[whose] = true
    gone = gone + 1
  end
end
for whose in pairs(names) do redis.call('DEL', lists .. whose) end
return gone
