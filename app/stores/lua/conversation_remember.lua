local about = record .. '.about'
if redis.call('HEXISTS', about, 'deleted') == 1 then return 0 end
redis.call('SET', record, value, 'PX', ttl)
local now = now_ms()
forget_expired(conversations, had, now)
forget_late(listed, '-inf', now, LATE)
if conversation ~= '' then
  redis.call('HSET', about, 'id', conversation, 'bot', bot)
  redis.call('HSETNX', about, 'created', created)
  if title ~= '' then redis.call('HSETNX', about, 'title', title) end
end
renew_conversation(record, conversations, had, listed, user, now, ttl)
return 1
