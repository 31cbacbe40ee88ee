-- Opening it again after it was erased would write what no index knows: an entry that is older than the erasure is gone.
if redis.call('EXISTS', erased) == 1 then return {} end
local now = now_ms()
if redis.call('EXISTS', session) == 0 then
  redis.call('HSET', session, 'owner', owner, 'status', 'active',
    'created', int(now), 'updated', int(now), 'activity', int(now), 'indexed', int(now),
    'expires', int(now + session_ttl), 'conversation_id', '', 'running', '', 'seeded', '', 'count', '0')
  redis.call('HSET', session, unpack(fields))
  redis.call('PEXPIRE', session, int(session_ttl + remembered(hash(session), session_ttl)))
  redis.call('HSET', chats, 'owner', owner)
  redis.call('PEXPIRE', chats, int(session_ttl))
end
return redis.call('HGETALL', session)
