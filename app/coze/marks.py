"""Marks on the frames of a log whose chat is read by clients of Coze's own API, too.

Such a client is to see Coze's events as they came, and nothing of ours; all other readers see what they
always did. So the log also holds what those are not shown, and tells Coze's frames from ours:

- what is hidden is a comment of the event stream, line by line: a reader that does not know of it (one of the
  version before) reads nothing there;
- what we add for the folding rule has a second blank in front of its data: JSON begins with any number of
  them. What a repair adds has none, since it stands for what Coze would have sent.
"""

from typing import Final

_COMMENT: Final = b": "
_DATA: Final = b"\ndata: "
_OUR_DATA: Final = b"\ndata:  "


def hide(frame: bytes) -> bytes:
    """The frame as a comment."""
    return _COMMENT + frame[:-2].replace(b"\n", b"\n" + _COMMENT) + b"\n\n"


def is_hidden(frame: bytes) -> bool:
    return frame.startswith(_COMMENT)


def shown(hidden: bytes) -> bytes:
    """The frame that was hidden."""
    return hidden[2:-2].replace(b"\n" + _COMMENT, b"\n") + b"\n\n"


def as_ours(frame: bytes) -> bytes:
    """A frame that is there for the folding rule alone."""
    return frame.replace(_DATA, _OUR_DATA, 1)


def is_ours(frame: bytes) -> bool:
    return _OUR_DATA in frame[:256]
