-- Raising the epoch and writing <epoch>-0 is one step: from here on Redis refuses the former owner's entries.
local run, log, now = runs .. chat, logs .. chat, now_ms()
local function refused(kind) return {kind, '', {}, {}, '', ''} end

if fingerprint ~= '' then
  local before = redis.call('GET', idempotency_key)
  if before then return refused(string.match(before, '^%x+') == fingerprint and 'no' or 'reused') end
end
local member = chat .. ':' .. epoch
local r = hash(run)
if not r.epoch or (epoch ~= '' and r.epoch ~= epoch) then
  redis.call('ZREM', leases, member)
  return refused('no')
end
epoch, member = r.epoch, chat .. ':' .. r.epoch
if expected ~= '' and r.state ~= expected then return refused('no') end
local expires = redis.call('ZSCORE', leases, member)
if not force and expires and tonumber(expires) > now then return refused('no') end

local s = hash(session)
local lives = s.owner and s.status == 'active'
local kind, state = 'claimed', r.state
if state == 'waiting' and expected == '' and not r.cancel then
  -- Its lease is due with its session's end, which may have moved since: the session decides.
  if lives and tonumber(s.expires) > now then
    set_lease(leases, member, tonumber(s.expires))
    return refused('no')
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
  if claims > max_claims then kind = 'exhausted' end
end
if state == 'started' or state == 'waiting' then
  epoch = int(tonumber(r.epoch) + 1)
  redis.call('XADD', log, epoch .. '-0', 'n', '0', 'f', '')
end
redis.call('ZREM', leases, member)
set_lease(leases, chat .. ':' .. epoch, now + lease)
local stored = redis.call('HGET', chats, chat)
if state == 'waiting' then
  count_out(leases, 'waiting', chat)
  if stored and record ~= '' then redis.call('HSET', chats, chat, record) end
end
redis.call('HSET', run, 'epoch', epoch, 'state', 'started', 'process', process)
if outputs ~= '' then redis.call('HSET', run, 'tool_outputs', outputs) end
if fingerprint ~= '' then
  remember_key(used, idempotency_key, fingerprint .. ' ' .. epoch .. ' ' .. said)
end
live_at_least(run, hold)
live_at_least(log, hold)
if lives and s.running == chat and kind ~= 'expired' then
  renew_session(session, chats, s, now, session_ttl, hold)
end
return {kind, epoch, redis.call('HGETALL', run), flatten(s), stored or '', state}
