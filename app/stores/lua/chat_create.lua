-- KEYS session, chats, order, run, leases, log, queue, keys used, idempotency key (unused without a fingerprint)
-- ARGV mine, admin_prefix, chat, record, first frame, lease, ttl, tombstone, hold, policy, max queued,
--      fingerprint, idempotency ttl, newest kept, process, then field, value, ... of the run
-- -> {'started'|'queued', flat session, chat in the way, chat that was displaced, index due}
--  | {'same', chat} | {'reused'} | {'gone'} | {'busy', chat} | {'full', chat} | {'none'|'terminated'|'expired'}
local session, chats, order, run, leases, log, queue, used_keys, idem = unpack(KEYS)
local chat, record, frame = ARGV[3], ARGV[4], ARGV[5]
local lease, ttl, tombstone, hold = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8]), tonumber(ARGV[9])
local policy, now = ARGV[10], now_ms()
local s = hash(session)

local state = session_state(s, ARGV[1], ARGV[2], now)
if state == 'none' then return {state} end
if ARGV[12] ~= '' then
  local used = redis.call('GET', idem)
  if used then
    local fingerprint, before = string.match(used, '^(%x+) (.*)$')
    if fingerprint ~= ARGV[12] then return {'reused'} end
    if redis.call('HEXISTS', chats, before) == 0 then return {'gone'} end
    if before ~= chat then return {'same', before} end
  end
end
if state ~= 'active' then return {state} end
-- The answer to a first try was lost: the chat is there and is ours.
if redis.call('HEXISTS', chats, chat) == 1 then
  local _, flat = hash(session)
  return {s.running == chat and 'started' or 'queued', flat, s.running, '', 0}
end

-- A session of a single chat is within no limit, so it takes no second one: to callers there is none.
if s.single and redis.call('EXISTS', order) == 1 then return {'none'} end

local run_prefix = string.sub(run, 1, #run - #chat)
local in_the_way, displaced = s.running, ''
-- A chat whose run is gone (Redis had to make room) can never end: it must not keep the session busy for ever.
if in_the_way ~= '' and redis.call('EXISTS', run_prefix .. in_the_way) == 0 then in_the_way = '' end
if in_the_way ~= '' then
  if policy == 'reject' then return {'busy', in_the_way} end
  if policy == 'enqueue' and redis.call('LLEN', queue) >= tonumber(ARGV[11]) then return {'full', in_the_way} end
  if policy == 'interrupt' then
    -- Of two interrupts the later wins: the one that still waits at the head makes room.
    local head = redis.call('LINDEX', queue, 0)
    if head and redis.call('HGET', run_prefix .. head, 'interrupt') == '1' then
      displaced = redis.call('LPOP', queue)
      count_out(leases, 'queued', displaced)
      redis.call('HSET', run_prefix .. displaced, 'cancel', '1')
      set_lease(leases, displaced .. ':1', now + 2000)
    end
  end
  record, frame = with_status(record, 'processing', 'pending'), with_status(frame, 'processing', 'pending')
end

redis.call('HSET', chats, chat, record)
redis.call('LPUSH', order, chat)
local old = redis.call('LRANGE', order, tonumber(ARGV[14]), -1)
if #old > 0 then
  redis.call('HDEL', chats, unpack(old))
  for _, id in ipairs(old) do
    redis.call('DEL', run_prefix .. id, string.sub(log, 1, #log - #chat) .. id)
  end
  redis.call('LTRIM', order, 0, tonumber(ARGV[14]) - 1)
end
redis.call('HSET', run, 'sid', string.match(session, '([^:]+)$'), 'epoch', '1',
  'state', in_the_way == '' and 'started' or 'queued', 'process', ARGV[15], unpack(ARGV, 16))
redis.call('XADD', log, '1-1', 'n', '1', 'f', frame)
if in_the_way == '' then
  set_lease(leases, chat .. ':1', now + lease)
  s.running = chat
  redis.call('HSET', session, 'running', chat)
elseif policy == 'interrupt' then
  redis.call('HSET', run, 'interrupt', '1')
  redis.call('LPUSH', queue, chat)
else
  redis.call('RPUSH', queue, chat)
end
s.count = int(redis.call('HINCRBY', session, 'count', 1))
redis.call('HSET', session, 'updated', int(now))
renew_session(session, chats, s, now, ttl, hold, tombstone)
if ARGV[12] ~= '' then
  redis.call('SET', idem, ARGV[12] .. ' ' .. chat, 'PX', ARGV[13])
  redis.call('SADD', used_keys, idem)
  redis.call('PEXPIRE', used_keys, ARGV[13])
end
return {in_the_way == '' and 'started' or 'queued', flatten(s), in_the_way, displaced, index_due(session, s, now)}
