local run = runs .. chat
local r = hash(run)
if not r.epoch then return {'gone', '', ''} end
redis.call('HSET', run, 'cancel', '1')
if r.state == 'started' then return {r.state, r.epoch, r.process or ''} end
-- Nobody runs it. With this lease somebody will end it: the caller, or after its death whoever claims it.
set_lease(leases, chat .. ':' .. r.epoch, now_ms() + lease)
if r.state == 'waiting' then return {r.state, r.epoch, ''} end
-- Out of the queue in one step: the end of the chat before it cannot start it any more.
redis.call('LREM', queue, 0, chat)
redis.call('HSET', run, 'state', 'ready')
count_out(leases, 'queued', chat)
return {'ready', r.epoch, ''}
