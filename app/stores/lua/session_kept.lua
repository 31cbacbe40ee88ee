-- KEYS session. ARGV its conversation, now -> 1, or 0 where there is no such session any more
if redis.call('HGET', KEYS[1], 'conversation_id') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'kept', ARGV[2])
return 1
