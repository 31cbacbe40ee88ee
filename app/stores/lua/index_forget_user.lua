if redis.call('ZCOUNT', remaining_sessions, int(now_ms()), '+inf') > 0 then return 0 end
redis.call('ZREM', users, user)
redis.call('ZREM', users_by_name, user)
return 1
