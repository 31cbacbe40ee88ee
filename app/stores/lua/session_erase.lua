-- The mark stays: an owner that comes back must not take this for lost data.
local ids = redis.call('LRANGE', order, 0, -1)
for _, chat in ipairs(ids) do redis.call('DEL', runs .. chat, logs .. chat) end
local keys = redis.call('SMEMBERS', used)
if #keys > 0 then redis.call('DEL', unpack(keys)) end
redis.call('DEL', session, chats, order, queue, used)
redis.call('SET', erased, '1', 'PX', TOMBSTONE)
return #ids
