if redis.call('ZCOUNT', remaining_sessions, int(now_ms()), '+inf') > 0 then return 0 end
for _, key in ipairs({owner_users, root_users, users, users_by_name}) do redis.call('ZREM', key, user) end
return 1
