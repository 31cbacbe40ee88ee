-- Queued and waiting chats get a short lease: if this process dies before it has cancelled them, another one does.
local now = now_ms()
-- idle_only is an eviction: the service acts for itself, and a caller's own index led here.
local whoever = idle_only and redis.call('HGET', session, 'owner')
local state, s = session_of(session, whoever or mine, admin_prefix, now)
if state == 'none' or state == 'expired' then return {state, {}, '', {}} end
if state == 'active' and idle_only and (s.running ~= '' or redis.call('EXISTS', queue) == 1) then
  return {'busy', {}, '', {}}
end
local queued = {}
if state == 'active' then
  s.status, s.reason, s.updated = 'terminated', reason, int(now)
  redis.call('HSET', session, 'status', s.status, 'reason', s.reason, 'updated', s.updated)
  redis.call('PEXPIRE', session, TOMBSTONE)
  queued = redis.call('LRANGE', queue, 0, -1)
  redis.call('DEL', queue)
  for _, id in ipairs(queued) do
    count_out(leases, 'queued', id)
    local epoch = redis.call('HGET', runs .. id, 'epoch')
    if epoch then
      redis.call('HSET', runs .. id, 'cancel', '1')
      set_lease(leases, id .. ':' .. epoch, now + 2000)
    end
  end
end
local running = runs .. s.running
if s.running ~= '' and redis.call('EXISTS', running) == 1 then
  redis.call('HSET', running, 'cancel', '1')
  local chat_state, epoch = unpack(redis.call('HMGET', running, 'state', 'epoch'))
  if chat_state == 'waiting' then set_lease(leases, s.running .. ':' .. epoch, now + 2000) end
end
-- The hash stays for a day. What is large in it goes, from the answer, too: ending a session twice is answered alike.
if is_large(s) then
  redis.call('HDEL', session, 'messages', 'metadata')
  s.messages, s.metadata = nil, nil
end
return {state, flatten(s), s.running, queued}
