local conversation, bot = unpack(redis.call('HMGET', record, 'conversation', 'bot'))
if not conversation then return end
redis.call('DEL', record)
redis.call('ZREM', lists .. bot, conversation)
