-- The owner writes from memory what Redis has lost: the log, and where all is gone the rest too.
local run, log, now = runs .. chat, logs .. chat, now_ms()
local known = redis.call('HGET', run, 'epoch')
if known and known ~= epoch then return 'fenced' end
if not known then
  -- A record without a run is a chat that somebody has ended; neither means that Redis lost its data.
  if redis.call('HEXISTS', chats, chat) == 1 or redis.call('EXISTS', erased) == 1 then return 'fenced' end
  -- The record of an end can have expired before its owner heard of it; the session lives a day longer.
  if redis.call('HGET', session, 'ended') == chat then return 'fenced' end
  if redis.call('EXISTS', session) == 0 then redis.call('HSET', session, unpack(session_fields)) end
  redis.call('HSET', session, 'running', chat)
  redis.call('HSET', chats, 'owner', owner, chat, record)
  redis.call('LREM', order, 0, chat)
  redis.call('LPUSH', order, chat)
  redis.call('HSET', run, unpack(run_fields))
  redis.call('HSET', run, 'epoch', epoch, 'state', 'started')
  set_lease(leases, chat .. ':' .. epoch, now + lease)
  renew_session(session, chats, hash(session), now, session_ttl, hold)
end
redis.call('DEL', log)
redis.call('XADD', log, epoch .. '-' .. last_frame, 'n', first_frame, 'f', frames)
-- As long as its run, which whatever renews the session has seen to.
redis.call('PEXPIRE', log, int(math.max(redis.call('PTTL', run), hold)))
return 'ok'
