"""What most readers of a stored chat need to know of it, without decoding the answer."""

from typing import Final

import msgspec


class ChatHead(msgspec.Struct):
    chat_id: str
    status: str


head_of: Final = msgspec.json.Decoder(ChatHead).decode
