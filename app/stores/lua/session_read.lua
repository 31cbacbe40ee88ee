local now = now_ms()
local state, s = session_of(session, mine, admin_prefix, now)
if state == 'none' then return {state, {}, {}, {}, 0, 0} end
local due = 0
if state == 'active' and touch then
  renew_session(session, chats, s, now, session_ttl, hold)
  due = index_due(session, s, now)
end
local ids = limit > 0 and redis.call('LRANGE', order, 0, limit - 1) or {}
local records, states = records_of(s, chats, runs, ids, limit, small)
if not records then return {state, {}, {}, {}, due, 1} end
return {state, flatten(s), records, states, due, 0}
