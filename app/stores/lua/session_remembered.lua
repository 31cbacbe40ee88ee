if redis.call('HGET', session, 'conversation_id') ~= conversation then return 0 end
redis.call('HSET', session, 'kept', remembered_at)
return 1
