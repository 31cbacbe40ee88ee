-- KEYS run, session. ARGV epoch, coze chat id, conversation id, their credential. -> 1, or 0 where somebody else owns the chat.
-- The session's opening messages are at Coze now: they are not sent a second time.
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then return 0 end
if ARGV[2] ~= '' then redis.call('HSET', KEYS[1], 'coze_chat_id', ARGV[2]) end
if ARGV[3] ~= '' then
  redis.call('HSET', KEYS[1], 'conversation_id', ARGV[3], 'credential', ARGV[4])
  if redis.call('HEXISTS', KEYS[2], 'owner') == 1 then
    if redis.call('HGET', KEYS[2], 'conversation_id') == '' then
      redis.call('HSET', KEYS[2], 'conversation_id', ARGV[3], 'credential', ARGV[4])
    end
    redis.call('HSET', KEYS[2], 'seeded', '1')
  end
end
return 1
