-- KEYS run, queue, leases. ARGV chat, lease
-- -> {'gone'} | {'ready', epoch} (it was queued: the caller claims and ends it) | {'waiting'|'started', epoch, owner's process}
local r = hash(KEYS[1])
if not r.epoch then return {'gone'} end
redis.call('HSET', KEYS[1], 'cancel', '1')
if r.state == 'started' then return {r.state, r.epoch, r.process or ''} end
-- Nobody runs it. With this lease somebody will end it: the caller, or after its death whoever claims it.
set_lease(KEYS[3], ARGV[1] .. ':' .. r.epoch, now_ms() + tonumber(ARGV[2]))
if r.state == 'waiting' then return {r.state, r.epoch, ''} end
-- Out of the queue in one step: the end of the chat before it cannot start it any more.
redis.call('LREM', KEYS[2], 0, ARGV[1])
redis.call('HSET', KEYS[1], 'state', 'ready')
count_out(KEYS[3], 'queued', ARGV[1])
return {'ready', r.epoch, ''}
