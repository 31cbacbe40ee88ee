if redis.call('EXISTS', record) == 0 then return {} end
renew_owned(record, lists, ttl, now_ms())
local _, flat = hash(record)
return flat
