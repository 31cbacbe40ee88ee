-- Of two at once one is new.
local value = redis.call('GET', key)
if not value then
  redis.call('SET', key, fingerprint .. ' ' .. session_id, 'PX', IDEMPOTENCY)
  return {'new', session_id}
end
local first, id = string.match(value, '^(%x+) (.*)$')
return {first == fingerprint and 'same' or 'reused', id}
