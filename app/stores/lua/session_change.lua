local now = now_ms()
local state, s = session_of(session, mine, admin_prefix, now)
if state ~= 'active' then return {state, {}, 0} end
redis.call('HSET', session, 'updated', int(now), unpack(fields))
renew_session(session, chats, s, now, session_ttl, hold)
local due = index_due(session, s, now)
return {state, redis.call('HGETALL', session), due}
