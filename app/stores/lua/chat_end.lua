-- KEYS session, chats, order, run, leases, log, queue, usage of the owner, owners of the root, then where there is
--      a quota what the user has spent; of the last three a day's number is to be added
-- ARGV chat, epoch, record, waiting ('1' = requires_action: not over), number of the first frame, of the last, frames,
--      packed log ('' while it waits), ttl, tombstone, hold, log ttl, lease, draining, 'tokens input output', their row,
--      how long it is kept
-- -> {'ok', next chat or '', when the session expires, index due} | {'fenced', epoch} | {'nolog'} | {'lost'}
-- The end is written once: owner and epoch are checked here, and all of it or nothing happens.
local session, chats, order, run, leases, log, queue = unpack(KEYS)
local chat, epoch, record, waiting = ARGV[1], ARGV[2], ARGV[3], ARGV[4] == '1'
local ttl, tombstone, hold, log_ttl = tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12])
local last, now = epoch .. '-' .. ARGV[6], now_ms()
local r, s = hash(run), hash(session)

-- One step with the end, and behind the checks of owner and epoch: however often the end is sent, it counts once.
local function count_usage()
  local day = math.floor(now / DAY)
  local midnight = (day + 1) * DAY
  local used, row = KEYS[8] .. day, ARGV[16]
  local tokens, input, output = string.match(ARGV[15], '^(%d+) (%d+) (%d+)$')
  local sums = redis.call('HGET', used, row)
  local n, t, i, o = string.match(sums or '0 0 0 0', '^(%d+) (%d+) (%d+) (%d+)$')
  redis.call('HSET', used, row, string.format('%.0f %.0f %.0f %.0f', n + 1, t + tokens, i + input, o + output))
  if not sums then
    local owners, life = KEYS[9] .. day, int(midnight - now + tonumber(ARGV[17]))
    redis.call('SADD', owners, string.match(KEYS[8], '([^:]+):$'))
    redis.call('PEXPIRE', used, life)
    redis.call('PEXPIRE', owners, life)
  end
  if KEYS[10] and tokens ~= '0' then
    redis.call('INCRBY', KEYS[10] .. day, tokens)
    redis.call('PEXPIRE', KEYS[10] .. day, int(midnight - now + 60000))
  end
end

if not r.epoch then
  -- Ended already by this very owner (the answer was lost), or Redis lost its data.
  local newest = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)
  if newest[1] and newest[1][1] == last then return {'ok', '', '0', 0} end
  return {'lost'}
end
if r.epoch ~= epoch then return {'fenced', r.epoch} end
if waiting then
  if r.state == 'waiting' then return {'ok', '', s.expires or '0', 0} end
  if redis.call('EXISTS', log) == 0 then return {'nolog'} end
  local added = redis.pcall('XADD', log, last, 'n', ARGV[5], 'f', ARGV[7])
  if type(added) == 'table' then return {'nolog'} end -- an error
else
  -- All of it in one entry: `f` is what replicas of the version before this one can read.
  redis.call('DEL', log)
  redis.call('XADD', log, last, 'n', ARGV[5], 'f', ARGV[7], 'z', ARGV[8])
  redis.call('PEXPIRE', log, int(log_ttl))
end
redis.call('ZREM', leases, chat .. ':' .. epoch)
if s.owner and redis.call('HSETNX', chats, 'owner', s.owner) == 1 then redis.call('PEXPIRE', chats, int(log_ttl)) end
if redis.call('EXISTS', chats) == 1 then redis.call('HSET', chats, chat, record) end

if waiting then
  redis.call('HSET', run, 'state', 'waiting')
  redis.call('HDEL', run, 'tool_outputs')
  if s.owner and s.status == 'active' and s.running == chat then
    renew_session(session, chats, s, now, ttl, hold, tombstone)
  else
    -- Its session was ended meanwhile: whoever finds this lease due ends it, too.
    set_lease(leases, chat .. ':' .. epoch, now + 2000)
  end
  return {'ok', '', s.expires or '0', 0}
end
redis.call('DEL', run)
count_usage()
if not s.owner then return {'ok', '', '0', 0} end

-- The session is over, and nothing revives it: what waited behind this chat ends as well.
if s.status == 'terminated' or r.expired then
  redis.call('HSET', session, 'ended', chat, 'running', s.running == chat and '' or s.running)
  local run_prefix = string.sub(run, 1, #run - #chat)
  for _, id in ipairs(redis.call('LRANGE', queue, 0, -1)) do
    if redis.call('EXISTS', run_prefix .. id) == 1 then
      redis.call('HSET', run_prefix .. id, 'state', 'ready', 'expired', '1')
      count_out(leases, 'queued', id)
      set_lease(leases, id .. ':1', now)
    end
  end
  redis.call('DEL', queue)
  local left = math.max(log_ttl, tonumber(s.expires) - now)
  redis.call('PEXPIRE', chats, int(left))
  redis.call('PEXPIRE', order, int(left))
  return {'ok', '', s.expires, 0}
end

local follower = ''
if s.running == chat then
  s.running = ''
  local run_prefix = string.sub(run, 1, #run - #chat)
  while follower == '' do
    local id = redis.call('LPOP', queue)
    if not id then break end
    if redis.call('HEXISTS', run_prefix .. id, 'epoch') == 1 then follower = id end
  end
  if follower ~= '' then
    -- Ready, not started: whoever claims it may POST it, this process now or another one after its death.
    -- While this process drains, the lease has run out from the start.
    redis.call('HSET', run_prefix .. follower, 'state', 'ready')
    count_out(leases, 'queued', follower)
    set_lease(leases, follower .. ':1', ARGV[14] == '1' and 0 or now + tonumber(ARGV[13]))
    local queued_record = redis.call('HGET', chats, follower)
    if queued_record then
      redis.call('HSET', chats, follower, with_status(queued_record, 'pending', 'processing'))
    end
    s.running = follower
  end
  redis.call('HSET', session, 'running', s.running)
else
  -- A queued chat that was cancelled ends while another one runs.
  redis.call('LREM', queue, 0, chat)
end
redis.call('HSET', session, 'updated', int(now), 'ended', chat)
renew_session(session, chats, s, now, ttl, hold, tombstone)
return {'ok', follower, s.expires, index_due(session, s, now)}
