local found = not_filed(conversations, 500)
for i = 1, #found, 2 do
  local user, record = string.match(found[i], '^([^:]+):(.+)$')
  file(conversations, found[i], had .. user, record, tonumber(found[i + 1]))
  live_at_least(had .. user, ttl)
end
return #found / 2
