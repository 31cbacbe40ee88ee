local run, log, now = runs .. chat, logs .. chat, now_ms()
local state, s = session_of(session, mine, admin_prefix, now)
local function refused(kind, which) return {kind, which or '', {}, '', 0} end

if state == 'none' then return refused(state) end
if fingerprint ~= '' then
  local value = redis.call('GET', idempotency_key)
  if value then
    local first, before = string.match(value, '^(%x+) (.*)$')
    if first ~= fingerprint then return refused('reused') end
    if redis.call('HEXISTS', chats, before) == 0 then return refused('gone') end
    if before ~= chat then return refused('same', before) end
  end
end
if state ~= 'active' then return refused(state) end
-- The answer to a first try was lost: the chat is there and is ours.
if redis.call('HEXISTS', chats, chat) == 1 then
  return {s.running == chat and 'started' or 'queued', s.running, flatten(s), '', 0}
end

-- A single session is within no limit, so it takes no second chat: to callers there is none. Only whoever names the
-- chat that is the newest goes on in it: what Coze remembers of a conversation cannot branch.
if after ~= '' and after ~= '*' and redis.call('LINDEX', order, 0) ~= after then return refused('moved') end
if s.single == '1' and after == '' and redis.call('EXISTS', order) == 1 then return refused('none') end

-- Places that are taken in the queue, and by this chat: a long one takes several.
local function places(size) return math.max(1, math.ceil(size / place_bytes)) end
local function queued_places()
  local sum = places(#request)
  for _, id in ipairs(redis.call('LRANGE', queue, 0, -1)) do
    sum = sum + places(redis.call('HSTRLEN', runs .. id, 'request'))
  end
  return sum
end

local in_the_way, displaced = s.running, ''
-- A chat whose run is gone (Redis had to make room) can never end: it must not keep the session busy for ever.
if in_the_way ~= '' and redis.call('EXISTS', runs .. in_the_way) == 0 then in_the_way = '' end
if in_the_way ~= '' then
  if on_busy == 'enqueue' then
    if queued_places() > max_queued then return refused('full', in_the_way) end
  elseif on_busy == 'interrupt' then
    -- Of two interrupts the later wins: the one that still waits at the head makes room.
    local head = redis.call('LINDEX', queue, 0)
    if head and redis.call('HGET', runs .. head, 'interrupt') == '1' then
      displaced = redis.call('LPOP', queue)
      count_out(leases, 'queued', displaced)
      redis.call('HSET', runs .. displaced, 'cancel', '1')
      set_lease(leases, displaced .. ':1', now + 2000)
    end
  else
    return refused('busy', in_the_way)
  end
end

redis.call('HSET', chats, chat, record)
redis.call('LPUSH', order, chat)
local old = redis.call('LRANGE', order, max_records, -1)
if #old > 0 then
  redis.call('HDEL', chats, unpack(old))
  for _, id in ipairs(old) do
    local coze_chat = s.single and redis.call('HGET', chats, 'of:' .. id)
    if coze_chat then redis.call('HDEL', chats, 'of:' .. id, 'coze:' .. coze_chat) end
    redis.call('DEL', runs .. id, logs .. id)
  end
  redis.call('LTRIM', order, 0, max_records - 1)
end
redis.call('HSET', run, 'sid', string.match(session, '([^:]+)$'), 'epoch', '1',
  'state', in_the_way == '' and 'started' or 'queued', 'process', process, 'request', request)
redis.call('XADD', log, '1-1', 'n', '1', 'f', in_the_way == '' and first_frame or queued_frame)
if in_the_way == '' then
  set_lease(leases, chat .. ':1', now + lease)
  s.running = chat
  redis.call('HSET', session, 'running', chat)
elseif on_busy == 'interrupt' then
  redis.call('HSET', run, 'interrupt', '1')
  redis.call('LPUSH', queue, chat)
else
  redis.call('RPUSH', queue, chat)
end
s.count = int(redis.call('HINCRBY', session, 'count', 1))
-- The first message names the session, unless somebody else has.
if title ~= '' and not s.title then
  s.title = title
  redis.call('HSET', session, 'title', title)
end
redis.call('HSET', session, 'updated', int(now))
renew_session(session, chats, s, now, session_ttl, hold)
if fingerprint ~= '' then remember_key(used, idempotency_key, fingerprint .. ' ' .. chat) end
return {in_the_way == '' and 'started' or 'queued', in_the_way, flatten(s), displaced, index_due(session, s, now)}
