local value = redis.call('GET', record)
if not value then return nil end
redis.call('PEXPIRE', record, ttl)
redis.call('ZADD', conversations, int(now_ms() + ttl), user .. ':' .. string.match(record, '([^:]+)$'))
redis.call('PEXPIRE', conversations, ttl)
return value
