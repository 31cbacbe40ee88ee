redis.call('ZREM', labelled, member)
redis.call('ZREM', begun, conversation)
