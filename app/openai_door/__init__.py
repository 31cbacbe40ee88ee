"""The second dialect: OpenAI's chat completions over the same chats, for clients that speak nothing else."""
