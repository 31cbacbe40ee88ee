-- KEYS session. ARGV conversation id, credential that it belongs to, when its ownership was written
-- The first conversation stays: -> the one that holds, or nil where the session is gone.
if redis.call('HGET', KEYS[1], 'conversation_id') == '' then
  redis.call('HSET', KEYS[1], 'conversation_id', ARGV[1], 'credential', ARGV[2], 'kept', ARGV[3])
end
return redis.call('HGET', KEYS[1], 'conversation_id')
