redis.call('LPUSH', failures, entry)
redis.call('LTRIM', failures, 0, most - 1)
redis.call('PEXPIRE', failures, ttl)
