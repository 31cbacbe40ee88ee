-- KEYS leases. ARGV how many -> members whose lease has run out by Redis' clock, oldest first
return redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', int(now_ms()), 'LIMIT', 0, ARGV[1])
