-- Of several who find its session over, one puts a new one in its place, and the others get that.
if redis.call('EXISTS', record) == 0 then return {} end
if redis.call('HGET', record, 'session') == ended then redis.call('HSET', record, 'session', session_id) end
if redis.call('HGET', record, 'user_id') == '' then
  local listed = redis.call('HGET', record, 'bot')
  redis.call('ZREM', lists .. listed, redis.call('HGET', record, 'conversation'))
  redis.call('HSET', record, 'user_id', user_id, 'bot', bot)
end
return renew_owned(record, lists, ttl)
