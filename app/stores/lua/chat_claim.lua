-- KEYS session, chats, run, leases, log
-- ARGV chat, epoch, process, lease, ttl + hold, force ('1' = the lease may still run), expected state ('' = any), max claims
-- -> {'start'|'claimed'|'worn', epoch, flat run, flat session, record} | {'gone'} | {'stale'} | {'held'} | {'state', state}
-- Raising the epoch and writing <epoch>-0 is one step: from here on Redis refuses the former owner's entries.
local session, chats, run, leases, log = unpack(KEYS)
local chat, epoch, now = ARGV[1], ARGV[2], now_ms()
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
if ARGV[7] ~= '' and r.state ~= ARGV[7] then return {'state', r.state} end
local expires = redis.call('ZSCORE', leases, member)
if ARGV[6] ~= '1' and expires and tonumber(expires) > now then return {'held'} end

local record = redis.call('HGET', chats, chat) or ''
local kind = 'claimed'
if r.state == 'ready' or r.state == 'queued' then
  -- Nobody has owned it: the first owner starts it in its first epoch.
  kind = 'start'
else
  local claims = tonumber(r.claims or '0') + 1
  if r.state ~= 'waiting' then redis.call('HSET', run, 'claims', int(claims)) end
  if claims > tonumber(ARGV[8]) then kind = 'worn' end
  epoch = int(tonumber(r.epoch) + 1)
  redis.call('XADD', log, epoch .. '-0', 'n', '0', 'f', '')
end
redis.call('ZREM', leases, member)
set_lease(leases, chat .. ':' .. epoch, now + tonumber(ARGV[4]))
if r.state == 'waiting' then
  unnote(leases, 'waiting', chat)
  record = with_status(record, 'requires_action', 'processing')
  redis.call('HSET', chats, chat, record)
end
redis.call('HSET', run, 'epoch', epoch, 'state', 'started', 'process', ARGV[3])
redis.call('PEXPIRE', run, ARGV[5])
redis.call('PEXPIRE', log, ARGV[5])
local s = hash(session)
if s.owner and s.status == 'active' and s.running == chat then
  redis.call('HSET', session, 'expires', int(math.max(tonumber(s.expires), now + tonumber(ARGV[5]))))
  redis.call('PEXPIRE', session, int(tonumber(ARGV[5]) + 86400000))
  redis.call('PEXPIRE', chats, ARGV[5])
end
local _, flat_run = hash(run)
return {kind, epoch, flat_run, flatten(s), record}
