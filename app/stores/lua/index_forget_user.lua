-- KEYS what is kept of the user, all users, the root's users of that name. ARGV user
-- -> 1 if nothing is kept of the user, who then leaves the indexes
if redis.call('ZCOUNT', KEYS[1], int(now_ms()), '+inf') > 0 then return 0 end
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
return 1
