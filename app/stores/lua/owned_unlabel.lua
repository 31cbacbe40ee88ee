if may_be_opening(labelled, member, ttl, opening, now_ms()) then return 1 end
redis.call('ZREM', labelled, member)
redis.call('ZREM', begun, conversation)
return 0
