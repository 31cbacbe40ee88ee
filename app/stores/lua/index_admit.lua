-- Scores are expiry times, so what was forgotten here leaves by itself. What is over leaves in the same step in which
-- the newcomer enters: of two that come for one place one gets it, and the other is told what there is now.
local now, life = now_ms(), ttl + TOMBSTONE
for _, key in ipairs(KEYS) do redis.call('ZREMRANGEBYSCORE', key, '-inf', int(now)) end
if over ~= '' then
  redis.call('ZREM', user_sessions, over)
  redis.call('ZREM', sessions, over)
end
if not redis.call('ZSCORE', user_sessions, session_id) then
  local mine = redis.call('ZCARD', user_sessions)
  local full = redis.call('ZCARD', sessions) >= total
  if mine >= per_user or (mine > 0 and full) then
    return {'evict', now, redis.call('ZRANGE', user_sessions, 0, -1, 'WITHSCORES')}
  end
  if full or (not redis.call('ZSCORE', users, user) and redis.call('ZCARD', users) >= max_users) then
    redis.call('ZREM', users, user) -- who has sessions and is refused is not there
    return {'full', now, {}}
  end
end
for _, key in ipairs({user_sessions, sessions}) do redis.call('ZADD', key, int(now + ttl), session_id) end
redis.call('ZADD', users, int(now + ttl), user)
redis.call('ZADD', remaining_sessions, int(now + life), session_id)
redis.call('ZADD', users_by_name, int(now + life), user)
for _, key in ipairs(KEYS) do live_at_least(key, life) end
return {'ok', now, {}}
