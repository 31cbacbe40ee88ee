local found = redis.call('ZRANGE', conversations, 0, 499)
for _, member in ipairs(found) do
  local user, record = string.match(member, '^([^:]+):(.+)$')
  redis.call('DEL', records .. record)
  redis.call('ZREM', conversations, member)
  redis.call('ZREM', lists .. user, record)
  redis.call('ZREM', had .. user, record)
end
return #found
