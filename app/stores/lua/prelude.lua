-- Put in front of every script. Times are milliseconds by Redis' own clock, so that replicas agree.
local function now_ms()
  local t = redis.call('TIME')
  return t[1] * 1000 + math.floor(t[2] / 1000)
end

-- Numbers as digits: a Lua double would otherwise reach Redis with an exponent or a fraction.
local function int(n)
  return string.format('%.0f', n)
end

local function hash(key)
  local flat, h = redis.call('HGETALL', key), {}
  for i = 1, #flat, 2 do h[flat[i]] = flat[i + 1] end
  return h, flat
end

local function may_see(owner, mine, admin_prefix)
  return owner == mine or (admin_prefix ~= '' and string.sub(owner, 1, #admin_prefix) == admin_prefix)
end

-- Whether the indexes have to be told that the session lives longer; whoever is told true tells them.
local function index_due(session, s, now)
  if now - tonumber(s.indexed) <= 60000 then return 0 end
  redis.call('HSET', session, 'indexed', int(now))
  return 1
end

-- 'none', 'terminated', 'expired' or 'active'. Somebody else's session is 'none'.
local function session_state(s, mine, admin_prefix, now)
  if not s.owner or not may_see(s.owner, mine, admin_prefix) then return 'none' end
  if s.status == 'terminated' then return 'terminated' end
  if tonumber(s.expires) < now then return 'expired' end
  return 'active'
end

-- The session outlives its chats by the tombstone, so that a late caller is told what happened to it.
-- Nobody comes back to one of a single chat: its tombstone is only there for an owner that was held up.
local function keep_session(session, chats, order, s, now, ttl, tombstone)
  if s.single then tombstone = math.min(tombstone, 3600000) end
  local until_ms = math.max(now + ttl, s.running ~= '' and tonumber(s.expires) or 0)
  redis.call('HSET', session, 'activity', int(now), 'expires', int(until_ms))
  redis.call('PEXPIRE', session, int(until_ms - now + tombstone))
  redis.call('PEXPIRE', chats, int(until_ms - now))
  redis.call('PEXPIRE', order, int(until_ms - now))
  s.activity, s.expires = int(now), int(until_ms)
end

-- Only the first status is replaced: it stands before everything that a caller wrote.
local function with_status(record, from, to)
  return (string.gsub(record, '"status":"' .. from .. '"', '"status":"' .. to .. '"', 1))
end

local function flatten(h)
  local flat = {}
  for k, v in pairs(h) do flat[#flat + 1] = k; flat[#flat + 1] = v end
  return flat
end

-- Queued and waiting chats are counted beside the leases; what is forgotten there leaves at its time.
local function note(leases, list, chat, until_ms)
  local key = string.sub(leases, 1, -7) .. list
  redis.call('ZREMRANGEBYSCORE', key, '-inf', int(now_ms()))
  redis.call('ZADD', key, int(until_ms), chat)
  redis.call('PEXPIRE', key, '86400000')
end

local function unnote(leases, list, chat)
  redis.call('ZREM', string.sub(leases, 1, -7) .. list, chat)
end

-- A day is far longer than any lease: the key only has to go when its shard falls silent.
local function set_lease(leases, member, expires_at)
  redis.call('ZADD', leases, int(expires_at), member)
  redis.call('PEXPIRE', leases, '86400000')
end
