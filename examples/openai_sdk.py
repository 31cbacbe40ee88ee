"""OpenAI's own SDK (pip install openai) in front of the service: a bot is a model.

./run-service.sh test
.venv/bin/python examples/openai_sdk.py
"""

import os

from openai import OpenAI

base = os.environ.get("BASE_URL", "http://127.0.0.1:6000")
client = OpenAI(base_url=f"{base}/coze/openai/v1", api_key=os.environ.get("API_KEY", "sk-test"))

model = client.models.list().data[0].id
print("model:", model)
stream = client.chat.completions.create(
    model=model, messages=[{"role": "user", "content": "你好，介绍一下你自己"}], stream=True
)
for chunk in stream:
    for choice in chunk.choices:
        print(choice.delta.content or "", end="", flush=True)
print()
client.close()
