redis.call('ZREM', user_sessions, session_id)
redis.call('ZREM', sessions, session_id)
if redis.call('ZCARD', user_sessions) == 0 then redis.call('ZREM', users, user) end
