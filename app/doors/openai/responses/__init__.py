"""OpenAI's Responses API: a response is a chat of ours, or what one says after tool outputs."""
