-- Put in front of every script, together with what its signature in scripts.py makes of keys and arguments: local
-- variables of these names. Times are milliseconds by Redis' own clock, so that replicas agree.
local DAY = 86400000
local HOUR = 3600000
local TOMBSTONE = DAY -- how long a session that is over is remembered, so that a late caller is told why it is gone
local IDEMPOTENCY = DAY
local PAGE = 1048576 -- bytes of records in one answer: Redis and its callers wait while more is sent
local PORTION = 250 -- rows of usage that an erasure looks at in one step
local LATE = 100 -- entries that leave a set in one step because their time is up
local FILED = 100000000000000 -- see `file`
local LARGE = 4096 -- bytes that callers write into a session, past which they do not outlive it

local taken = 0
local function next_argument()
  taken = taken + 1
  return ARGV[taken]
end

-- Its length comes first.
local function next_list()
  local items = {}
  for i = 1, tonumber(next_argument()) do items[i] = next_argument() end
  return items
end

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
  return h
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

-- 'none', 'terminated', 'expired' or 'active', and the session's fields. Somebody else's session is 'none', and whose it
-- is comes first: how much there is to read would tell strangers by the time it takes.
local function session_of(key, mine, admin_prefix, now)
  local owner = redis.call('HGET', key, 'owner')
  if not owner or not may_see(owner, mine, admin_prefix) then return 'none', {} end
  local s = hash(key)
  if s.status == 'terminated' then return 'terminated', s end
  if tonumber(s.expires) < now then return 'expired', s end
  return 'active', s
end

-- An Idempotency-Key and what it stands for; the set leads erasure to it.
local function remember_key(used, key, value)
  redis.call('SET', key, value, 'PX', IDEMPOTENCY)
  redis.call('SADD', used, key)
  redis.call('PEXPIRE', used, IDEMPOTENCY)
end

-- Records, and the states of their runs ('' where there is none): while a chat is not over, its status follows from its
-- run's state, whatever its record says. `most` of them, or as many as fit into a page, at least one; and how many ids
-- were looked at: what was deleted is passed over. `small`: bytes, with the session's own texts; where it would be more,
-- nil. 0: as much as fits into a page.
local function records_of(s, chats, runs, ids, most, small)
  local records, states, size, seen = {}, {}, 0, 0
  local texts = #(s.messages or '') + #(s.metadata or '')
  if small > 0 and texts > small then return nil end
  for _, id in ipairs(ids) do
    local length = redis.call('HSTRLEN', chats, id)
    size = size + length
    if #records == most then break end
    if small > 0 and texts + size > small then return nil end
    if size > PAGE and #records > 0 then break end
    seen = seen + 1
    if length > 0 then
      records[#records + 1] = redis.call('HGET', chats, id)
      states[#states + 1] = s.running ~= '' and redis.call('HGET', runs .. id, 'state') or ''
    end
  end
  return records, states, seen
end

local function flatten(h)
  local flat = {}
  for k, v in pairs(h) do flat[#flat + 1] = k; flat[#flat + 1] = v end
  return flat
end

-- Never shortens: several chats share these keys, and each needs them until its own time.
local function live_at_least(key, ms)
  if redis.call('PTTL', key) < ms then redis.call('PEXPIRE', key, int(ms)) end
end

-- Whether somebody has ended a chat that has no run. The record of its end can have expired, the session lives a day
-- longer.
local function has_ended(session, chat, stored)
  local status = stored and string.match(stored, '"status":"([%l_]+)"')
  if status and status ~= 'processing' and status ~= 'pending' and status ~= 'requires_action' then return true end
  return redis.call('HGET', session, 'ended') == chat
end

-- Scores are expiry times, and what is late leaves when somebody enters something: `most` entries in one step, since
-- everybody waits for it, and the rest in the next ones. So whoever counts asks only for what lives. Returns how many.
local function forget_late(key, first, last, most)
  local late = redis.call('ZRANGEBYSCORE', key, first, int(last), 'LIMIT', 0, most)
  if #late > 0 then redis.call('ZREM', key, unpack(late)) end
  return #late
end

local function living(command, key, now, ...)
  return redis.call(command, key, '(' .. int(now), '+inf', ...)
end

-- A day more than the entry needs: the key only has to go when its shard falls silent.
local function set_lease(leases, member, expires_at)
  redis.call('ZADD', leases, int(expires_at), member)
  live_at_least(leases, math.max(0, expires_at - now_ms()) + DAY)
end

-- Queued and waiting chats are counted beside the leases; what is forgotten there counts until its time.
local function count_in(leases, list, chat, until_ms)
  local key, now = string.sub(leases, 1, -7) .. list, now_ms()
  forget_late(key, '-inf', now, LATE)
  redis.call('ZADD', key, int(until_ms), chat)
  live_at_least(key, until_ms - now + DAY)
end

local function count_out(leases, list, chat)
  redis.call('ZREM', string.sub(leases, 1, -7) .. list, chat)
end

-- How long a session's hash stays when it has expired. What is large stays for as long as the session would have lived
-- at most: those that have expired then never hold more than those that live may.
local function is_large(s) return #(s.messages or '') + #(s.metadata or '') > LARGE end
local function remembered(s, ttl)
  if s.single then return HOUR end
  return is_large(s) and s.running == '' and math.min(ttl, TOMBSTONE) or TOMBSTONE
end

-- The one place where a session's life changes: `expires` moves here, and with it everything that the session
-- and its chats need. `expires` is the last activity + ttl, + hold while a chat runs; a chat that only waits for
-- tool outputs holds nothing. Keys of chats that are not over live a tombstone longer than that, so that whoever
-- finds the lease of one in time can still end it. After the end only the session's own hash stays so long, to
-- tell a late caller what happened; nobody comes back to one of a single chat.
local function renew_session(session, chats, s, now, ttl, hold)
  local tombstone = remembered(s, ttl)
  local shard, id = string.match(session, '^(.*:)session:(.*)$')
  local leases, run, state, epoch = shard .. 'leases', shard .. 'run:', nil, nil
  if s.running ~= '' then
    state, epoch = unpack(redis.call('HMGET', run .. s.running, 'state', 'epoch'))
  end
  local runs = state == 'started' or state == 'ready'
  local life = ttl + (runs and hold or 0)
  local longer = life + tombstone
  s.activity, s.expires = int(now), int(now + life)
  redis.call('HSET', session, 'activity', s.activity, 'expires', s.expires)
  redis.call('PEXPIRE', session, int(longer))
  local records = s.running == '' and life or longer
  redis.call('PEXPIRE', chats, int(records))
  redis.call('PEXPIRE', shard .. 'order:' .. id, int(records))
  if s.running == '' then return end
  local function renew_chat(chat)
    redis.call('PEXPIRE', run .. chat, int(longer))
    redis.call('PEXPIRE', shard .. 'log:' .. chat, int(longer))
  end
  renew_chat(s.running)
  if state == 'waiting' then
    -- Where one is there already, whoever finds it due found at the session again.
    redis.call('ZADD', leases, 'NX', s.expires, s.running .. ':' .. epoch)
    live_at_least(leases, life + DAY)
    count_in(leases, 'waiting', s.running, now + longer)
  end
  local queue = shard .. 'queue:' .. id
  redis.call('PEXPIRE', queue, int(longer))
  for _, chat in ipairs(redis.call('LRANGE', queue, 0, -1)) do
    renew_chat(chat)
    count_in(leases, 'queued', chat, now + longer)
  end
end

-- Whose erasure has to find something: it is entered under a name, which all of a root share, and once more in a list of
-- the user's own, so that he reads nothing of the others. Scores are expiry times. Under the name FILED is added to
-- them, since the version before enters things there alone: what lies below is to be filed yet.
local function file(named, member, own, item, expires)
  redis.call('ZADD', named, int(FILED + expires), member)
  redis.call('ZADD', own, int(expires), item)
end

local function forget_expired(named, own, now)
  forget_late(named, '-inf', now, LATE)
  forget_late(named, int(FILED), FILED + now, LATE)
  forget_late(own, '-inf', now, LATE)
end

-- What is entered in an index is written soon after, or never: until then an erasure leaves what has no record, or that
-- would be in no index. `life` is how long before its time an entry was made. One that is ahead of its time is of
-- replicas with longer lives.
local function may_be_opening(index, member, life, opening, now)
  local entered = tonumber(redis.call('ZSCORE', index, member) or 0) % FILED - life
  return math.abs(now - entered) < opening
end

local function not_filed(named, limit)
  return redis.call('ZRANGEBYSCORE', named, '-inf', '(' .. int(FILED), 'WITHSCORES', 'LIMIT', 0, limit)
end

-- A conversation that an owner has: remembered from its last use on, and found by that in the list of its bot. Returns
-- its fields and values.
local function renew_owned(record, lists, ttl)
  local conversation, bot = unpack(redis.call('HMGET', record, 'conversation', 'bot'))
  local now, list = now_ms(), lists .. bot
  redis.call('HSET', record, 'used', int(now))
  redis.call('PEXPIRE', record, ttl)
  forget_late(list, '-inf', now, LATE)
  redis.call('ZADD', list, int(now + ttl), conversation)
  redis.call('PEXPIRE', list, ttl)
  return redis.call('HGETALL', record)
end

-- A conversation is remembered for its full time from now on. What is told of it in lists lies beside the proof of
-- ownership, under a name that the version before finds as a record of its own when it erases the user.
local function renew_conversation(record, conversations, had, listed, user, now, ttl)
  local about, digest, expires = record .. '.about', string.match(record, '([^:]+)$'), now + ttl
  redis.call('PEXPIRE', record, ttl)
  file(conversations, user .. ':' .. digest, had, digest, expires)
  if redis.call('HEXISTS', about, 'id') == 1 then
    redis.call('HSET', about, 'used', int(now))
    redis.call('PEXPIRE', about, ttl)
    file(conversations, user .. ':' .. digest .. '.about', had, digest .. '.about', expires)
    redis.call('ZADD', listed, int(expires), digest)
    redis.call('PEXPIRE', listed, ttl)
  end
  redis.call('PEXPIRE', conversations, ttl)
  redis.call('PEXPIRE', had, ttl)
end
