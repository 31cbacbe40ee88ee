local state, s = session_of(session, mine, admin_prefix, now_ms())
if state ~= 'active' then return {state, {}, {}, 0, '', 0} end
local ids = redis.call('LRANGE', order, 0, -1)
local first = 1
if before ~= '' then
  first = #ids + 1
  for i, id in ipairs(ids) do
    if id == before then first = i + 1 end
  end
end
local records, states, seen = records_of(s, chats, runs, {unpack(ids, first)}, limit, small)
if not records then return {state, {}, {}, 0, '', 1} end
return {state, records, states, first + seen - 1 < #ids and 1 or 0, s.expires, 0}
