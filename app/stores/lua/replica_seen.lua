-- When a process was last heard of stands before what it says of itself; who has been silent for `ttl` leaves.
local now = now_ms()
for name, said in pairs(hash(replicas)) do
  if now - tonumber(string.match(said, '^%d+')) > ttl then redis.call('HDEL', replicas, name) end
end
redis.call('HSET', replicas, process, int(now) .. ' ' .. about)
redis.call('PEXPIRE', replicas, ttl)
return redis.call('HLEN', replicas)
