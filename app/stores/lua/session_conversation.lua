-- KEYS session. ARGV conversation id, credential that it belongs to. The first conversation stays: -> the one that holds.
if redis.call('HGET', KEYS[1], 'conversation_id') == '' then
  redis.call('HSET', KEYS[1], 'conversation_id', ARGV[1], 'credential', ARGV[2])
end
return redis.call('HGET', KEYS[1], 'conversation_id')
