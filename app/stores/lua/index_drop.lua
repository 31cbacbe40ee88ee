for _, key in ipairs({user_sessions, owner_sessions, root_sessions, sessions}) do redis.call('ZREM', key, session_id) end
if living('ZCOUNT', user_sessions, now_ms()) == 0 then
  for _, key in ipairs({owner_users, root_users, users}) do redis.call('ZREM', key, user) end
end
