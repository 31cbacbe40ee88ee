local run, stored = runs .. chat, redis.call('HGET', chats, chat)
if redis.call('EXISTS', run) == 1 then return 1 end
if not stored or has_ended(session, chat, stored) or redis.call('EXISTS', erased) == 1 then return 0 end
if not redis.call('ZSCORE', leases, chat .. ':' .. epoch) then return 0 end
redis.call('HSET', run, 'epoch', epoch, 'sid', session_id, 'state', 'started', 'request', request)
live_at_least(run, hold)
return 1
