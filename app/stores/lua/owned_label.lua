local now = now_ms()
redis.call('ZREMRANGEBYSCORE', labelled, '-inf', int(now))
redis.call('ZADD', labelled, int(now + ttl), member)
redis.call('PEXPIRE', labelled, ttl)
