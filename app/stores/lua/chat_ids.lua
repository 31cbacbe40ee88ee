local run = runs .. chat
if redis.call('HGET', run, 'epoch') ~= epoch then return 0 end
if coze_chat ~= '' then redis.call('HSET', run, 'coze_chat_id', coze_chat) end
-- Coze's clients know their chats by Coze's ids. Beside the records, so that both go together.
if coze_chat ~= '' and redis.call('HGET', session, 'single') == 'conversation' and redis.call('EXISTS', chats) == 1 then
  redis.call('HSET', chats, 'coze:' .. coze_chat, chat, 'of:' .. chat, coze_chat)
end
if conversation ~= '' then
  redis.call('HSET', run, 'conversation_id', conversation, 'credential', credential)
  if redis.call('HEXISTS', session, 'owner') == 1 then
    if redis.call('HGET', session, 'conversation_id') == '' then
      redis.call('HSET', session, 'conversation_id', conversation, 'credential', credential)
    end
    -- The session's opening messages are at Coze now: they are not sent a second time.
    redis.call('HSET', session, 'seeded', '1')
  end
end
return 1
