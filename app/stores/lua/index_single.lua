local now, life = now_ms(), ttl + TOMBSTONE
for _, key in ipairs(KEYS) do forget_late(key, '-inf', now, LATE) end
redis.call('ZADD', remaining_sessions, int(now + life), session_id)
local known = tonumber(redis.call('ZSCORE', users_by_name, user) or '0')
if known < now + life then redis.call('ZADD', users_by_name, int(now + life), user) end
for _, key in ipairs(KEYS) do live_at_least(key, life) end
