-- Only what lives counts: of what has expired a part leaves with each newcomer. What is over leaves in the step in which
-- the newcomer enters: of two that come for one place one gets it, and the other is told what there is now. All layers
-- are in one slot, so a newcomer enters all of them or none.
local now, life = now_ms(), ttl + TOMBSTONE
local session_sets = {user_sessions, owner_sessions, root_sessions, sessions}
local user_sets = {owner_users, root_users, users}
for _, key in ipairs(KEYS) do forget_late(key, '-inf', now, LATE) end
if over ~= '' then
  for _, key in ipairs(session_sets) do redis.call('ZREM', key, over) end
end
local function is_full(key, most)
  return most > 0 and living('ZCOUNT', key, now) >= most
end
local function is_entered(key, member)
  return tonumber(redis.call('ZSCORE', key, member) or 0) > now
end
if not is_entered(user_sessions, session_id) then
  local mine = living('ZCOUNT', user_sessions, now)
  local function refused(kind, layer) -- who has no sessions and gets none is not there
    for _, key in ipairs(user_sets) do redis.call('ZREM', key, user) end
    return {kind, now, layer, {}}
  end
  for layer, key in ipairs(session_sets) do
    if is_full(key, tonumber(most_sessions[layer])) then
      if mine == 0 then return refused('sessions', layer - 1) end
      return {'evict', now, layer - 1, living('ZRANGEBYSCORE', user_sessions, now, 'WITHSCORES')}
    end
  end
  for n, key in ipairs(mine == 0 and user_sets or {}) do -- the layers above the user's own
    if not is_entered(key, user) and is_full(key, tonumber(most_users[n + 1])) then
      return refused('users', n)
    end
  end
end
for _, key in ipairs(session_sets) do redis.call('ZADD', key, int(now + ttl), session_id) end
for _, key in ipairs(user_sets) do redis.call('ZADD', key, int(now + ttl), user) end
redis.call('ZADD', remaining_sessions, int(now + life), session_id)
redis.call('ZADD', users_by_name, int(now + life), user)
for _, key in ipairs(KEYS) do live_at_least(key, life) end
return {'ok', now, 0, {}}
