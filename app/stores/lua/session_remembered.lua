if redis.call('HGET', session, 'conversation_id') ~= conversation then return 0 end
redis.call('HSET', session, 'kept', remembered_at)
if listed then redis.call('HSET', session, 'listed', '1') end
return 1
