-- KEYS session, chats. ARGV ttl, tombstone, owner, then field, value, ...
-- Repeating it with the same id changes nothing, so an answer that was lost can be asked for again.
local now = now_ms()
local session, chats = KEYS[1], KEYS[2]
local ttl, tombstone = tonumber(ARGV[1]), tonumber(ARGV[2])
if redis.call('EXISTS', session) == 0 then
  redis.call('HSET', session, 'owner', ARGV[3], 'status', 'active',
    'created', int(now), 'updated', int(now), 'activity', int(now), 'indexed', int(now),
    'expires', int(now + ttl), 'conversation_id', '', 'running', '', 'seeded', '', 'count', '0')
  redis.call('HSET', session, unpack(ARGV, 4))
  redis.call('PEXPIRE', session, int(ttl + tombstone))
  redis.call('HSET', chats, 'owner', ARGV[3])
  redis.call('PEXPIRE', chats, int(ttl))
end
local _, flat = hash(session)
return flat
