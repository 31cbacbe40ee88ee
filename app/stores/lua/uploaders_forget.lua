for _, user in ipairs(users) do
  if redis.call('EXISTS', files .. user) == 0 then redis.call('ZREM', uploaders, user) end
end
