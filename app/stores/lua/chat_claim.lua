-- KEYS session, chats, run, leases, log, keys used, idempotency key (unused without a fingerprint)
-- ARGV chat, epoch ('' = whichever), process, lease, ttl, tombstone, hold, force ('1' = the lease may still run),
--      expected state ('' = any), max claims, then of tool outputs: themselves, what the chat had said before them,
--      fingerprint ('' = no Idempotency-Key), idempotency ttl
-- -> {'start'|'claimed'|'worn'|'expired', epoch, flat run, flat session, record, state before}
--  | {'gone'} | {'stale'} | {'held'} | {'state', state} | {'waits'} | {'same', epoch, said before} | {'reused'}
-- Raising the epoch and writing <epoch>-0 is one step: from here on Redis refuses the former owner's entries.
local session, chats, run, leases, log, used_keys, idem = unpack(KEYS)
local chat, epoch, now = ARGV[1], ARGV[2], now_ms()
if ARGV[13] ~= '' then
  local used = redis.call('GET', idem)
  if used then
    local fingerprint, before, said = string.match(used, '^(%x+) (%d+) (.*)$')
    if fingerprint ~= ARGV[13] then return {'reused'} end
    return {'same', before, said}
  end
end
local member = chat .. ':' .. epoch
local r = hash(run)
if not r.epoch then
  redis.call('ZREM', leases, member)
  return {'gone'}
end
if epoch ~= '' and r.epoch ~= epoch then
  redis.call('ZREM', leases, member)
  return {'stale'}
end
epoch, member = r.epoch, chat .. ':' .. r.epoch
if ARGV[9] ~= '' and r.state ~= ARGV[9] then return {'state', r.state} end
local expires = redis.call('ZSCORE', leases, member)
if ARGV[8] ~= '1' and expires and tonumber(expires) > now then return {'held'} end

local s = hash(session)
local lives = s.owner and s.status == 'active'
local kind, state = 'claimed', r.state
if state == 'waiting' and ARGV[9] == '' and not r.cancel then
  -- Its lease is due with its session's end, which may have moved since: the session decides.
  if lives and tonumber(s.expires) > now then
    set_lease(leases, member, tonumber(s.expires))
    return {'waits'}
  end
  redis.call('HSET', run, 'expired', '1')
  r.expired = '1'
end
if r.expired then
  kind = 'expired'
elseif state == 'ready' or state == 'queued' then
  -- Nobody has owned it: the first owner starts it in its first epoch.
  kind = 'start'
elseif state ~= 'waiting' then
  local claims = tonumber(r.claims or '0') + 1
  redis.call('HSET', run, 'claims', int(claims))
  if claims > tonumber(ARGV[10]) then kind = 'worn' end
end
if state == 'started' or state == 'waiting' then
  epoch = int(tonumber(r.epoch) + 1)
  redis.call('XADD', log, epoch .. '-0', 'n', '0', 'f', '')
end
redis.call('ZREM', leases, member)
set_lease(leases, chat .. ':' .. epoch, now + tonumber(ARGV[4]))
local record = redis.call('HGET', chats, chat) or ''
if state == 'waiting' then
  count_out(leases, 'waiting', chat)
  record = with_status(record, 'requires_action', 'processing')
  if record ~= '' then redis.call('HSET', chats, chat, record) end
end
redis.call('HSET', run, 'epoch', epoch, 'state', 'started', 'process', ARGV[3])
if ARGV[11] ~= '' then redis.call('HSET', run, 'tool_outputs', ARGV[11]) end
if ARGV[13] ~= '' then
  redis.call('SET', idem, ARGV[13] .. ' ' .. epoch .. ' ' .. ARGV[12], 'PX', ARGV[14])
  redis.call('SADD', used_keys, idem)
  redis.call('PEXPIRE', used_keys, ARGV[14])
end
local hold = tonumber(ARGV[7])
live_at_least(run, hold)
live_at_least(log, hold)
if lives and s.running == chat and kind ~= 'expired' then
  renew_session(session, chats, s, now, tonumber(ARGV[5]), hold, tonumber(ARGV[6]))
end
local _, flat_run = hash(run)
return {kind, epoch, flat_run, flatten(s), record, state}
