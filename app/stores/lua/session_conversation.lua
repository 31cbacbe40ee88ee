if redis.call('HGET', session, 'conversation_id') == '' then
  redis.call('HSET', session, 'conversation_id', conversation, 'credential', credential, 'kept', remembered_at)
end
return redis.call('HGET', session, 'conversation_id')
