local about = record .. '.about'
if redis.call('EXISTS', record) == 0 or redis.call('HEXISTS', about, 'id') == 0 then return {} end
redis.call('HSET', about, 'title', title)
return redis.call('HGETALL', about)
