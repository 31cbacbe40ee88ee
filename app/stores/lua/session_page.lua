-- KEYS session, chats, order. ARGV mine, admin_prefix, limit, before
-- -> {state, {record, ...} newest first, has_more, when the session expires}; an unknown `before` gives an empty page.
local s = hash(KEYS[1])
local state = session_state(s, ARGV[1], ARGV[2], now_ms())
if state ~= 'active' then return {state} end
local ids = redis.call('LRANGE', KEYS[3], 0, -1)
local first = 1
if ARGV[4] ~= '' then
  first = #ids + 1
  for i, id in ipairs(ids) do
    if id == ARGV[4] then first = i + 1 end
  end
end
local last = math.min(first + tonumber(ARGV[3]) - 1, #ids)
local records = {}
if last >= first then records = redis.call('HMGET', KEYS[2], unpack(ids, first, last)) end
return {state, records, last < #ids and 1 or 0, s.expires}
