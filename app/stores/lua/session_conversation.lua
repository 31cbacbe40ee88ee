-- Not beside a chat that began without one: that brings its own, and all of a session is to be in one conversation.
local s = hash(session)
if s.conversation_id == '' and s.running == '' then
  redis.call('HSET', session, 'conversation_id', conversation, 'credential', credential, 'kept', remembered_at)
end
return redis.call('HGET', session, 'conversation_id')
