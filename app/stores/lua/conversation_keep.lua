-- KEYS record, the name's conversations. ARGV how long it is kept, user, bot and credential
redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[1])
local now = now_ms()
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', int(now))
redis.call('ZADD', KEYS[2], int(now + tonumber(ARGV[1])), ARGV[2] .. ':' .. string.match(KEYS[1], '([^:]+)$'))
redis.call('PEXPIRE', KEYS[2], ARGV[1])
