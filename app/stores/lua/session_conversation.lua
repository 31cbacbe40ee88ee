-- KEYS session. ARGV conversation id. The first conversation stays: -> the one that holds.
if redis.call('HGET', KEYS[1], 'conversation_id') == '' then
  redis.call('HSET', KEYS[1], 'conversation_id', ARGV[1])
end
return redis.call('HGET', KEYS[1], 'conversation_id')
