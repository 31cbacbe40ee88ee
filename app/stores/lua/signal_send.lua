redis.call('XADD', signals, 'MAXLEN', most, '*', name, value)
redis.call('PEXPIRE', signals, ttl)
