for i, member in ipairs(members) do
  local expires = tonumber(redis.call('ZSCORE', labelled, member) or FILED)
  if expires < FILED then -- else it is gone, or another call was first
    file(labelled, member, begun .. owners[i], conversations[i], expires)
    live_at_least(begun .. owners[i], ttl)
  end
end
