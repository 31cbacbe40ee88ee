"""What Coze answers to a call that was passed on, for whoever passes it back."""

from typing import NamedTuple, TypeVar

from app.coze.codes import TOKEN_REFUSED
from app.coze.marks import is_hidden, is_ours, shown
from app.coze.replies import Reply
from app.models.chats import OUR_META_KEY

__all__ = ["TOKEN_REFUSED", "Passed", "is_hidden", "is_ours", "shown"]  # the doors know Coze through us alone
_D = TypeVar("_D")


class Passed(NamedTuple):
    """``data`` without what we have put into it; ``body``: all of the answer, for the keys beside
    ``data``."""

    data: object
    logid: str | None
    body: dict[str, object]

    @classmethod
    def of(cls, reply: Reply) -> "Passed":
        return cls(without_our_key(reply.data), reply.logid, reply.body)


def without_our_key(data: _D) -> _D:
    """Without the id that we give Coze to find our chats by."""
    for each in data if isinstance(data, list) else [data]:
        if not isinstance(each, dict) or not isinstance(meta := each.get("meta_data"), dict):
            continue
        if meta.pop(OUR_META_KEY, None) is not None and not meta:
            del each["meta_data"]
    return data
