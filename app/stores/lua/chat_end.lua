-- KEYS session, chats, order, run, leases, log, queue, usage of the owner, owners of the root, then where there is
--      a quota what the user has spent; of the last three a day's number is to be added
-- ARGV chat, epoch, record, waiting ('1' = requires_action: not over), first frame, last frame, frames,
--      ttl, tombstone, hold, log ttl, lease, draining, 'tokens input output', their row, how long it is kept
-- -> {'ok', next chat or ''} | {'fenced', epoch} | {'nolog'} | {'lost'}
-- The end is written once: owner and epoch are checked here, and all of it or nothing happens.
local session, chats, order, run, leases, log, queue = unpack(KEYS)
local chat, epoch, record, waiting = ARGV[1], ARGV[2], ARGV[3], ARGV[4] == '1'
local ttl, tombstone, hold = tonumber(ARGV[8]), tonumber(ARGV[9]), tonumber(ARGV[10])
local now = now_ms()
local r = hash(run)

-- One step with the end, and behind the checks of owner and epoch: however often the end is sent, it counts once.
local function count_usage()
  local day = math.floor(now / 86400000)
  local midnight = (day + 1) * 86400000
  local used, row = KEYS[8] .. day, ARGV[15]
  local tokens, input, output = string.match(ARGV[14], '^(%d+) (%d+) (%d+)$')
  local sums = redis.call('HGET', used, row)
  local n, t, i, o = string.match(sums or '0 0 0 0', '^(%d+) (%d+) (%d+) (%d+)$')
  redis.call('HSET', used, row, string.format('%.0f %.0f %.0f %.0f', n + 1, t + tokens, i + input, o + output))
  if not sums then
    local owners, kept = KEYS[9] .. day, int(midnight - now + tonumber(ARGV[16]))
    redis.call('SADD', owners, string.match(KEYS[8], '([^:]+):$'))
    redis.call('PEXPIRE', used, kept)
    redis.call('PEXPIRE', owners, kept)
  end
  if KEYS[10] and tokens ~= '0' then
    redis.call('INCRBY', KEYS[10] .. day, tokens)
    redis.call('PEXPIRE', KEYS[10] .. day, int(midnight - now + 60000))
  end
end

if not r.epoch then
  -- Ended already by this very owner (the answer was lost), or Redis lost its data.
  local last = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)
  if last[1] and last[1][1] == epoch .. '-' .. ARGV[6] then return {'ok', ''} end
  return {'lost'}
end
if r.epoch ~= epoch then return {'fenced', r.epoch} end
if r.state == 'waiting' and waiting then return {'ok', ''} end
if redis.call('EXISTS', log) == 0 then return {'nolog'} end
local added = redis.pcall('XADD', log, epoch .. '-' .. ARGV[6], 'n', ARGV[5], 'f', ARGV[7])
if type(added) == 'table' and added.err then return {'nolog'} end

redis.call('HSET', chats, chat, record)
redis.call('ZREM', leases, chat .. ':' .. epoch)
local s = hash(session)
if waiting then
  redis.call('HSET', run, 'state', 'waiting')
  note(leases, 'waiting', chat, now + ttl)
  redis.call('PEXPIRE', log, int(ttl + hold))
else
  redis.call('DEL', run)
  redis.call('PEXPIRE', log, ARGV[11])
  count_usage()
end
if not s.owner then return {'ok', ''} end
if waiting or s.status == 'terminated' then
  if not waiting then redis.call('HSET', session, 'ended', chat, 'running', s.running == chat and '' or s.running) end
  return {'ok', ''}
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
    redis.call('PEXPIRE', run_prefix .. follower, int(ttl + hold))
    unnote(leases, 'queued', follower)
    set_lease(leases, follower .. ':1', ARGV[13] == '1' and 0 or now + tonumber(ARGV[12]))
    local waiting_record = redis.call('HGET', chats, follower)
    if waiting_record then
      redis.call('HSET', chats, follower, with_status(waiting_record, 'pending', 'processing'))
    end
    s.running = follower
  end
  redis.call('HSET', session, 'running', s.running)
else
  -- A queued chat that was cancelled ends while another one runs.
  redis.call('LREM', queue, 0, chat)
end
redis.call('HSET', session, 'updated', int(now), 'ended', chat)
keep_session(session, chats, order, s, now, s.running == '' and ttl or ttl + hold, tombstone)
return {'ok', follower}
