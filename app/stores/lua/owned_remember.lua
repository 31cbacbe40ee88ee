-- The first who writes it down is right: repeating it changes nothing but its time.
if redis.call('EXISTS', record) == 0 then redis.call('HSET', record, 'bot', bot, unpack(fields)) end
return renew_owned(record, lists, ttl)
