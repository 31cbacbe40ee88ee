-- KEYS session, queue, leases. ARGV mine, admin_prefix, idle_only, reason, tombstone, run prefix
-- -> {state before, flat session after, running chat or '', {queued chat, ...}}
-- Queued and waiting chats get a short lease: if this process dies before it has cancelled them, another one does.
local now = now_ms()
local s = hash(KEYS[1])
-- idle_only is an eviction: the service acts for itself, and a caller's own index led here.
local mine = ARGV[3] == '1' and s.owner or ARGV[1]
local state = session_state(s, mine, ARGV[2], now)
if state == 'none' or state == 'expired' then return {state} end
if state == 'active' and ARGV[3] == '1' and (s.running ~= '' or redis.call('EXISTS', KEYS[2]) == 1) then
  return {'busy'}
end
local queued = {}
if state == 'active' then
  s.status, s.reason, s.updated = 'terminated', ARGV[4], int(now)
  redis.call('HSET', KEYS[1], 'status', s.status, 'reason', s.reason, 'updated', s.updated)
  redis.call('PEXPIRE', KEYS[1], ARGV[5])
  queued = redis.call('LRANGE', KEYS[2], 0, -1)
  redis.call('DEL', KEYS[2])
  for _, id in ipairs(queued) do
    count_out(KEYS[3], 'queued', id)
    local epoch = redis.call('HGET', ARGV[6] .. id, 'epoch')
    if epoch then
      redis.call('HSET', ARGV[6] .. id, 'cancel', '1')
      set_lease(KEYS[3], id .. ':' .. epoch, now + 2000)
    end
  end
end
local running = ARGV[6] .. s.running
if s.running ~= '' and redis.call('EXISTS', running) == 1 then
  redis.call('HSET', running, 'cancel', '1')
  local chat_state, epoch = unpack(redis.call('HMGET', running, 'state', 'epoch'))
  if chat_state == 'waiting' then set_lease(KEYS[3], s.running .. ':' .. epoch, now + 2000) end
end
return {state, flatten(s), s.running, queued}
