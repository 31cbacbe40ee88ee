-- The owner writes from memory what Redis has lost: the log, and of the rest whatever is gone, be it one key (thrown
-- away where memory was short) or all.
local run, log, now = runs .. chat, logs .. chat, now_ms()
local known, stored = redis.call('HGET', run, 'epoch'), redis.call('HGET', chats, chat)
if known and known ~= epoch then return 'fenced' end
if redis.call('EXISTS', erased) == 1 then return 'fenced' end
if not known then
  if has_ended(session, chat, stored) then return 'fenced' end
  -- Somebody else has claimed it, and only his run was lost.
  local newest = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)[1]
  if newest and tonumber(string.match(newest[1], '^%d+')) > tonumber(epoch) then return 'fenced' end
  redis.call('HSET', run, unpack(run_fields))
  redis.call('HSET', run, 'epoch', epoch, 'state', 'started')
end
-- After a failover it may stand there as it did before its turn came: whoever ended the chat before it again would
-- start it, and POST it, a second time.
local state = redis.call('HGET', run, 'state')
if state == 'queued' or state == 'ready' then
  redis.call('HSET', run, 'state', 'started')
  redis.call('LREM', queue, 0, chat)
  count_out(leases, 'queued', chat)
end
local no_session = #session_fields > 0 and redis.call('EXISTS', session) == 0
if no_session then redis.call('HSET', session, unpack(session_fields)) end
local s = hash(session)
if s.owner and redis.call('EXISTS', runs .. s.running) == 0 then
  -- Where another chat runs, that one keeps its place (no run has an empty name): this one may be a message that was
  -- queued behind it and is cancelled.
  s.running = chat
  redis.call('HSET', session, 'running', chat)
end
local no_order = redis.call('EXISTS', order) == 0
if not stored then
  redis.call('HSET', chats, chat, record)
  -- Whoever claimed the chat when its session was gone does not know whose it is.
  if owner ~= '' then redis.call('HSET', chats, 'owner', owner) end
end
if not stored or no_order then
  redis.call('LREM', order, 0, chat)
  redis.call('LPUSH', order, chat)
end
local member = chat .. ':' .. epoch
if not redis.call('ZSCORE', leases, member) then set_lease(leases, member, now + lease) end
redis.call('DEL', log)
redis.call('XADD', log, epoch .. '-' .. last_frame, 'n', first_frame, 'f', frames)
if not known or no_session or not stored or no_order then
  if s.owner then
    renew_session(session, chats, s, now, session_ttl, hold)
  else
    live_at_least(chats, log_ttl)
    live_at_least(order, log_ttl)
  end
  live_at_least(run, hold)
end
-- As long as its run, which whatever renews the session has seen to.
redis.call('PEXPIRE', log, int(math.max(redis.call('PTTL', run), hold)))
return 'ok'
