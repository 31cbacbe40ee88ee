-- KEYS record, the name's conversations. ARGV how long it is kept from now, user
-- -> bot and credential, or nil where this user has had no such conversation
local kept = redis.call('GET', KEYS[1])
if not kept then return nil end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
local member = ARGV[2] .. ':' .. string.match(KEYS[1], '([^:]+)$')
redis.call('ZADD', KEYS[2], int(now_ms() + tonumber(ARGV[1])), member)
redis.call('PEXPIRE', KEYS[2], ARGV[1])
return kept
