"""OpenAI's chat completions: its bodies, errors, chunks and routes."""
