-- Of a chat that is over; one that waits for tool outputs can lose a part of its record. It keeps its place in the order: Coze still remembers it, so what was before it is not the
-- newest again.
local stored = redis.call('HGET', chats, chat)
if not stored then return 'none' end
local state = redis.call('HGET', runs .. chat, 'state')
if state and (state ~= 'waiting' or rest == '') then return 'running' end
if stored ~= record then return 'changed' end
if rest ~= '' then
  redis.call('HSET', chats, chat, rest)
else
  redis.call('HDEL', chats, chat)
  redis.call('DEL', logs .. chat)
end
return 'ok'
