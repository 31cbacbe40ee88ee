-- Of a chat that is over. It keeps its place in the order: Coze still remembers it, so what was before it is not the
-- newest again.
local owner, stored = redis.call('HGET', chats, 'owner'), redis.call('HGET', chats, chat)
if not owner or not stored or not may_see(owner, mine, admin_prefix) then return 'none' end
if redis.call('EXISTS', runs .. chat) == 1 then return 'running' end
if stored ~= record then return 'changed' end
if rest ~= '' then
  redis.call('HSET', chats, chat, rest)
else
  redis.call('HDEL', chats, chat)
  redis.call('DEL', logs .. chat)
end
return 'ok'
