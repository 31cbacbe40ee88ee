-- KEYS session, chats, order, run, leases, log, erased
-- ARGV chat, epoch, first frame, last frame, frames, lease, ttl, tombstone, hold, record, owner, session fields n, then the session's
--      and the run's fields and values
-- -> {'ok'} | {'fenced'}. The owner writes from memory what Redis has lost: the log, and where all is gone the rest too.
local session, chats, order, run, leases, log, erased = unpack(KEYS)
local chat, epoch = ARGV[1], ARGV[2]
local ttl, hold, now = tonumber(ARGV[7]), tonumber(ARGV[9]), now_ms()
local known = redis.call('HGET', run, 'epoch')
if known and known ~= epoch then return {'fenced'} end
if not known then
  -- A record without a run is a chat that somebody has ended; neither means that Redis lost its data.
  if redis.call('HEXISTS', chats, chat) == 1 or redis.call('EXISTS', erased) == 1 then return {'fenced'} end
  -- The record of an end can have expired before its owner heard of it; the session lives a day longer.
  if redis.call('HGET', session, 'ended') == chat then return {'fenced'} end
  local n = tonumber(ARGV[12])
  if redis.call('EXISTS', session) == 0 then
    redis.call('HSET', session, unpack(ARGV, 13, 12 + n))
  end
  redis.call('HSET', session, 'running', chat)
  redis.call('HSET', chats, 'owner', ARGV[11], chat, ARGV[10])
  redis.call('LREM', order, 0, chat)
  redis.call('LPUSH', order, chat)
  redis.call('HSET', run, unpack(ARGV, 13 + n))
  redis.call('HSET', run, 'epoch', epoch, 'state', 'started')
  set_lease(leases, chat .. ':' .. epoch, now + tonumber(ARGV[6]))
  renew_session(session, chats, hash(session), now, ttl, hold, tonumber(ARGV[8]))
end
redis.call('DEL', log)
redis.call('XADD', log, epoch .. '-' .. ARGV[4], 'n', ARGV[3], 'f', ARGV[5])
-- As long as its run, which whatever renews the session has seen to.
redis.call('PEXPIRE', log, int(math.max(redis.call('PTTL', run), hold)))
return {'ok'}
