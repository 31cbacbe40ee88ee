-- KEYS prefix of usage in this shard, prefix of owners in this shard
-- ARGV owner ('' = all of the root), root, first day, last day, how a row of the user begins -> how many rows went
local gone = 0
for day = tonumber(ARGV[3]), tonumber(ARGV[4]) do
  local set = KEYS[2] .. ARGV[2] .. ':' .. day
  local owners = {ARGV[1]}
  if ARGV[1] == '' then owners = redis.call('SMEMBERS', set) end
  for _, owner in ipairs(owners) do
    local used = KEYS[1] .. owner .. ':' .. day
    for _, row in ipairs(redis.call('HKEYS', used)) do
      if string.sub(row, 1, #ARGV[5]) == ARGV[5] then gone = gone + redis.call('HDEL', used, row) end
    end
    if redis.call('EXISTS', used) == 0 then redis.call('SREM', set, owner) end
  end
end
return gone
