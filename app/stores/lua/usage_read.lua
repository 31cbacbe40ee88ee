-- KEYS prefix of usage in this shard, prefix of owners in this shard
-- ARGV owner ('' = all of the root), root, first day, last day -> {day, flat rows, day, flat rows, ...}
local found = {}
for day = tonumber(ARGV[3]), tonumber(ARGV[4]) do
  local owners = {ARGV[1]}
  if ARGV[1] == '' then owners = redis.call('SMEMBERS', KEYS[2] .. ARGV[2] .. ':' .. day) end
  for _, owner in ipairs(owners) do
    local rows = redis.call('HGETALL', KEYS[1] .. owner .. ':' .. day)
    if #rows > 0 then
      found[#found + 1] = day
      found[#found + 1] = rows
    end
  end
end
return found
