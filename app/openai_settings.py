"""What COZE_BOTS and COZE_OPENAI_API_KEYS hold. Texts of errors never quote a key."""

import re
from typing import Final

MIN_KEY_LENGTH: Final = 16
_NAME: Final = re.compile(r"[^\s,:\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]{1,64}")
_BOT_ID: Final = re.compile(r"[0-9A-Za-z_-]{1,64}")
_KEY_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_KEY: Final = re.compile(r"[!-+\--~]{16,512}")
"""Printable ASCII without a comma: it has to fit into a header."""


def parse_bots(listed: str) -> dict[str, str]:
    """``name:bot_id,name:bot_id``: bot ids by the model name that OpenAI's clients use. Raises ValueError."""
    bots: dict[str, str] = {}
    for entry in filter(None, (part.strip() for part in listed.split(","))):
        name, colon, bot_id = (part.strip() for part in entry.partition(":"))
        if not colon or not _NAME.fullmatch(name) or not _BOT_ID.fullmatch(bot_id):
            raise ValueError("a list of name:bot_id, separated by commas, is needed")
        if name in bots:
            raise ValueError(f"{name} is named twice")
        bots[name] = bot_id
    return bots


def parse_api_keys(listed: str) -> dict[str, str]:
    """``name:key``, separated by commas or white space: names by key. Raises ValueError."""
    names: dict[str, str] = {}
    for number, entry in enumerate(filter(None, re.split(r"[\s,]+", listed)), 1):
        name, colon, key = entry.partition(":")
        if not colon or not _KEY_NAME.fullmatch(name) or not _KEY.fullmatch(key):
            raise ValueError(
                f"entry {number} is not name:key with a name of letters, digits, _ or - and a key of "
                f"{MIN_KEY_LENGTH} to 512 printable characters"
            )
        if name in names.values() or key in names:
            raise ValueError(f"entry {number} repeats a name or a key")
        names[key] = name
    return names
