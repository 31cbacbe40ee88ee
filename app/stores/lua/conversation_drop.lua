local about, digest = record .. '.about', string.match(record, '([^:]+)$')
local gone = redis.call('DEL', record)
redis.call('DEL', about)
redis.call('ZREM', conversations, user .. ':' .. digest, user .. ':' .. digest .. '.about')
redis.call('ZREM', had, digest, digest .. '.about')
redis.call('ZREM', listed, digest)
if mark then
  redis.call('HSET', about, 'deleted', '1')
  redis.call('PEXPIRE', about, DAY)
end
return gone
