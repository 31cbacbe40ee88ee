if redis.call('EXISTS', record) == 1 then redis.call('HSET', record, unpack(fields)) end
