-- Whose it is comes first: neither the record nor its length is looked at for anybody else.
local owner = redis.call('HGET', chats, 'owner')
if not owner or not may_see(owner, mine, admin_prefix) then return {'', '', 0} end
if small > 0 and redis.call('HSTRLEN', chats, chat) > small then return {'', '', 1} end
return {redis.call('HGET', chats, chat) or '', redis.call('HGET', run, 'state') or '', 0}
