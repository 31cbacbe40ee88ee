-- KEYS session, chats, order. ARGV mine, admin_prefix, limit, touch, ttl, tombstone, hold
-- -> {state, flat session, {record, ...} newest first, index_due}
local now = now_ms()
local s = hash(KEYS[1])
local state = session_state(s, ARGV[1], ARGV[2], now)
if state == 'none' then return {state} end
local chats, order = KEYS[2], KEYS[3]
local due = 0
if state == 'active' and ARGV[4] == '1' then
  renew_session(KEYS[1], chats, s, now, tonumber(ARGV[5]), tonumber(ARGV[7]), tonumber(ARGV[6]))
  due = index_due(KEYS[1], s, now)
end
local records, limit = {}, tonumber(ARGV[3])
if limit > 0 then
  local ids = redis.call('LRANGE', order, 0, limit - 1)
  if #ids > 0 then records = redis.call('HMGET', chats, unpack(ids)) end
end
return {state, flatten(s), records, due}
