local value = redis.call('GET', record)
if not value then return {'', ''} end
renew_conversation(record, conversations, had, listed, user, now_ms(), ttl)
return {value, redis.call('HGET', record .. '.about', 'title') or ''}
