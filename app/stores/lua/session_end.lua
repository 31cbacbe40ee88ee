-- KEYS session, queue, leases. ARGV mine, admin_prefix, idle_only, reason, tombstone, run prefix
-- -> {state before, flat session after, running chat or '', {queued chat, ...}}
-- Queued chats get an expired lease: if this process dies before it has cancelled them, another one does.
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
    unnote(KEYS[3], 'queued', id)
    local epoch = redis.call('HGET', ARGV[6] .. id, 'epoch')
    if epoch then
      redis.call('HSET', ARGV[6] .. id, 'cancel', '1')
      set_lease(KEYS[3], id .. ':' .. epoch, now + 2000)
    end
  end
end
if s.running ~= '' then redis.call('HSET', ARGV[6] .. s.running, 'cancel', '1') end
return {state, flatten(s), s.running, queued}
