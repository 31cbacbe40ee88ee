if redis.call('EXISTS', record) == 0 then return {} end
return renew_owned(record, lists, ttl)
