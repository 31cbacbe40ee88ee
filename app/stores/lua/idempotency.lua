-- KEYS key. ARGV fingerprint, id, ttl -> {'new'} | {'same', id} | {'reused'}. Of two at once one is new.
local used = redis.call('GET', KEYS[1])
if not used then
  redis.call('SET', KEYS[1], ARGV[1] .. ' ' .. ARGV[2], 'PX', ARGV[3])
  return {'new'}
end
local fingerprint, id = string.match(used, '^(%x+) (.*)$')
if fingerprint ~= ARGV[1] then return {'reused'} end
return {'same', id}
