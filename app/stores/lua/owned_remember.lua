-- The first who writes it down is right: repeating it changes nothing but its time.
local now = now_ms()
if redis.call('EXISTS', record) == 0 then
  redis.call('HSET', record, 'bot', bot, 'used', int(now), unpack(fields))
end
renew_owned(record, lists, ttl, now)
local _, flat = hash(record)
return flat
