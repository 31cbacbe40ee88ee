-- KEYS run, queue, leases. ARGV chat, lease
-- -> {'gone'} | {'ready', epoch} (it was queued: the caller claims and ends it) | {'waiting'|'started', epoch, owner's process}
local r = hash(KEYS[1])
if not r.epoch then return {'gone'} end
redis.call('HSET', KEYS[1], 'cancel', '1')
if r.state == 'queued' or r.state == 'ready' then
  -- Out of the queue in one step: the end of the chat before it cannot start it any more. With its lease
  -- somebody will end it, the caller or, after its death, whoever claims it.
  redis.call('LREM', KEYS[2], 0, ARGV[1])
  redis.call('HSET', KEYS[1], 'state', 'ready')
  unnote(KEYS[3], 'queued', ARGV[1])
  set_lease(KEYS[3], ARGV[1] .. ':' .. r.epoch, now_ms() + tonumber(ARGV[2]))
  return {'ready', r.epoch, ''}
end
return {r.state, r.epoch, r.process or ''}
