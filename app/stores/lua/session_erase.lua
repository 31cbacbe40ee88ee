-- KEYS session, chats, order, queue, keys used, erased. ARGV run prefix, log prefix, tombstone
-- -> how many chats were erased. The mark stays: an owner that comes back must not take this for lost data.
local chats = redis.call('LRANGE', KEYS[3], 0, -1)
for _, chat in ipairs(chats) do redis.call('DEL', ARGV[1] .. chat, ARGV[2] .. chat) end
local used = redis.call('SMEMBERS', KEYS[5])
if #used > 0 then redis.call('DEL', unpack(used)) end
redis.call('DEL', unpack(KEYS))
redis.call('SET', KEYS[6], '1', 'PX', ARGV[3])
return #chats
