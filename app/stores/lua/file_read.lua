-- Whose it is comes first, as with sessions and chats: the rest of the record is not looked at for anybody else.
local head = redis.call('GETRANGE', file, 0, math.max(#mine, #roots) - 1)
local is_mine = string.sub(head, 1, #mine) == mine
if not is_mine and (roots == '' or string.sub(head, 1, #roots) ~= roots) then return false end
return redis.call('GET', file)
