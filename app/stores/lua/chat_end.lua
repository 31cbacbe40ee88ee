-- The end is written once: owner and epoch are checked here, and all of it or nothing happens.
local run, log, now = runs .. chat, logs .. chat, now_ms()
local last = epoch .. '-' .. last_frame
local r, s = hash(run), hash(session)
local function answer(verdict, follower, due) return {verdict, follower or '', s.expires or '0', due or 0} end

-- One step with the end, and behind the checks of owner and epoch: however often the end is sent, it counts once.
local function count_usage()
  local day = math.floor(now / DAY)
  local midnight = (day + 1) * DAY
  local of_day = usage .. day
  local tokens, input, output = string.match(counts, '^(%d+) (%d+) (%d+)$')
  local sums, rest = redis.call('HGET', of_day, row), string.char(31) -- of nobody and no bot
  if not sums and redis.call('HLEN', of_day) >= usage_rows then
    -- Callers make names of users and bots up: those that find no row of their own share one.
    row = rest
    sums = redis.call('HGET', of_day, row)
  end
  local n, t, i, o = string.match(sums or '0 0 0 0', '^(%d+) (%d+) (%d+) (%d+)$')
  redis.call('HSET', of_day, row, string.format('%.0f %.0f %.0f %.0f', n + 1, t + tokens, i + input, o + output))
  if not sums then
    local owners, life = usage_owners .. day, int(midnight - now + usage_ttl)
    redis.call('SADD', owners, string.match(usage, '([^:]+):$'))
    redis.call('PEXPIRE', of_day, life)
    redis.call('PEXPIRE', owners, life)
  end
  if not quota or tokens == '0' then return end
  for _, each in ipairs(spenders) do
    local key = spent .. each .. ':' .. day
    redis.call('INCRBY', key, tokens)
    redis.call('PEXPIRE', key, int(midnight - now + 60000))
  end
end

if not r.epoch then
  -- Ended already by this very owner (the answer was lost), or Redis lost its data.
  local newest = redis.call('XREVRANGE', log, '+', '-', 'COUNT', 1)
  return answer(newest[1] and newest[1][1] == last and 'ok' or 'lost')
end
if r.epoch ~= epoch then return answer('fenced') end
-- The session alone is gone, and nobody has erased it: memory was short.
if not s.owner and session_known and redis.call('EXISTS', erased) == 0 then return answer('lost') end
if waiting then
  if r.state == 'waiting' then return answer('ok') end
  if redis.call('EXISTS', log) == 0 then return answer('lost') end
  local added = redis.pcall('XADD', log, last, 'n', first_frame, 'f', frames)
  if type(added) == 'table' then return answer('lost') end -- an error
else
  -- All of it in one entry: `f` is what replicas of the version before this one can read.
  redis.call('DEL', log)
  redis.call('XADD', log, last, 'n', first_frame, 'f', frames, 'z', packed)
  redis.call('PEXPIRE', log, int(log_ttl))
end
redis.call('ZREM', leases, chat .. ':' .. epoch)
if s.owner and redis.call('HSETNX', chats, 'owner', s.owner) == 1 then redis.call('PEXPIRE', chats, int(log_ttl)) end
if redis.call('EXISTS', chats) == 1 then redis.call('HSET', chats, chat, record) end

if waiting then
  -- Coze has the message: it is not sent again, and waiting may last.
  redis.call('HSET', run, 'state', 'waiting', 'request', '{"message":""}')
  redis.call('HDEL', run, 'tool_outputs')
  if s.owner and s.status == 'active' and s.running == chat then
    renew_session(session, chats, s, now, session_ttl, hold)
  else
    -- Its session was ended meanwhile: whoever finds this lease due ends it, too.
    set_lease(leases, chat .. ':' .. epoch, now + 2000)
  end
  return answer('ok')
end
redis.call('DEL', run)
count_usage()
if not s.owner then return answer('ok') end

-- The session is over, and nothing revives it: what waited behind this chat ends as well.
if s.status == 'terminated' or r.expired then
  redis.call('HSET', session, 'ended', chat, 'running', s.running == chat and '' or s.running)
  for _, id in ipairs(redis.call('LRANGE', queue, 0, -1)) do
    if redis.call('EXISTS', runs .. id) == 1 then
      redis.call('HSET', runs .. id, 'state', 'ready', 'expired', '1')
      count_out(leases, 'queued', id)
      set_lease(leases, id .. ':1', now)
    end
  end
  redis.call('DEL', queue)
  local left = math.max(log_ttl, tonumber(s.expires) - now)
  redis.call('PEXPIRE', chats, int(left))
  redis.call('PEXPIRE', order, int(left))
  return answer('ok')
end

local follower = ''
if s.running == chat then
  s.running = ''
  while follower == '' do
    local id = redis.call('LPOP', queue)
    if not id then break end
    if redis.call('HEXISTS', runs .. id, 'epoch') == 1 then follower = id end
  end
  if follower ~= '' then
    -- Ready, not started: whoever claims it may POST it, this process now or another one after its death.
    -- While this process drains, the lease has run out from the start.
    redis.call('HSET', runs .. follower, 'state', 'ready')
    count_out(leases, 'queued', follower)
    set_lease(leases, follower .. ':1', draining and 0 or now + lease)
    s.running = follower
  end
  redis.call('HSET', session, 'running', s.running)
else
  -- A queued chat that was cancelled ends while another one runs.
  redis.call('LREM', queue, 0, chat)
end
redis.call('HSET', session, 'updated', int(now), 'ended', chat)
renew_session(session, chats, s, now, session_ttl, hold)
return answer('ok', follower, index_due(session, s, now))
