"""Files that a request names in the parameters of a bot: Coze's flows take an uploaded file as a text that is
JSON (``{"file_id": "..."}``), as a list of such, or as an object."""

import json
from collections.abc import Iterable, Iterator
from typing import Any, Final

from app.utils.json_shape import values_in

MAX_FILES: Final = 100
"""That one request names, in all of its messages and parameters: each is looked up."""
MOST_INSIDE: Final = 10_000
"""Values in texts that are JSON themselves, of a body all together: one of 16 MB may hold five million."""
FILE_ID: Final = "file_id"
_MOST_TEXTS: Final = 1_000
"""That begin like JSON and may name files: to find that one is none takes longest."""
_PIECE: Final = 64 * 1024
_MOST_LAYERS: Final = 3
"""A text in a text in a text: each layer is read once more, and may be written in a few bytes."""


def names_file(name: str) -> bool:
    """Whether a field is called so, without regard to case, as Go's JSON decoder compares."""
    return len(name) <= len(FILE_ID) and name.casefold() == FILE_ID


def may_name_files(text: str) -> bool:
    """In pieces: one step over megabytes would stop everybody, also beside the event loop."""
    for at in range(0, len(text), _PIECE):
        piece = text[at : at + _PIECE + len(FILE_ID)].casefold()
        if FILE_ID in piece or "\\u" in piece:
            return True
    return False


def file_fields(text: str) -> Iterator[list[tuple[str, Any]]]:
    """Of each object in a text that is a JSON array (or the object that it is) the fields that name a file.

    Two of one name are both told: a null behind an id leaves Go's decoder with the id. Raises ``ValueError``
    where the text is no JSON, ``RecursionError`` where it is too deep.
    """
    # The most lenient reader there is: nothing may be JSON to Coze that is none here.
    items = json.loads(text, object_pairs_hook=_Pairs)
    for item in items if isinstance(items, list) else [items]:
        if isinstance(item, _Pairs):
            yield [(name, value) for name, value in item if names_file(name)]


def files_named(values: Iterable[Any]) -> list[str]:
    """The ids of uploaded files that these values name, as they are written there.

    Args:
        values: of the parameters; what these are called themselves is up to the bot, and names no file.

    Returns:
        At most ``MAX_FILES`` ids. A text that is no JSON is plain text, whatever it says.

    Raises:
        ValueError: there are more, or more in them than is looked at.
    """
    found: list[str] = []
    left, texts_left = MOST_INSIDE, _MOST_TEXTS
    for _ in range(_MOST_LAYERS + 1):
        ids, texts = _walked(values)
        found += ids
        if len(found) > MAX_FILES:
            raise ValueError(f"at most {MAX_FILES} files are named in one request")
        inside = []
        for text in filter(_may_be_json, texts):
            texts_left -= 1
            left -= values_in(text.encode(errors="surrogatepass"), left)
            if texts_left < 0:
                raise ValueError(f"more than {_MOST_TEXTS} texts that may be JSON")
            if left < 0:
                raise ValueError(f"more than {MOST_INSIDE} values, in texts that are JSON")
            inside += _read(text)
        if not inside:
            return found
        values = inside
    raise ValueError(f"texts in texts that are JSON, in more than {_MOST_LAYERS} layers")


class _Pairs(tuple[tuple[str, Any], ...]):
    """An object with all of its fields: of two with one name another reader may take either."""


def _walked(values: Iterable[Any]) -> tuple[list[str], list[str]]:
    """The ids that are named here, and the texts that may be JSON."""
    ids: list[str] = []
    texts: list[str] = []
    left = list(values)
    while left:
        value = left.pop()
        if isinstance(value, str):
            texts.append(value)
        elif isinstance(value, list):
            left += value
        elif isinstance(value, dict | _Pairs):
            for name, each in value.items() if isinstance(value, dict) else value:
                if not names_file(name):
                    left.append(each)
                elif each is not None and each != "":
                    # A list or an object is no id, and nobody's.
                    ids.append(str(each) if isinstance(each, str | int | float) else "")
    return ids, texts


def _may_be_json(text: str) -> bool:
    return _begun(text)[:1] in ("{", "[", '"') and may_name_files(text)


def _begun(text: str) -> str:
    return text.lstrip().lstrip("\ufeff").lstrip()


_LENIENT: Final = json.JSONDecoder(
    strict=False, object_pairs_hook=_Pairs, parse_int=str, parse_float=str, parse_constant=str
)
"""Nothing may be JSON to Coze that is none here. Numbers stay texts: Python takes none of 5,000 digits."""


def _read(text: str) -> list[Any]:
    """What the text begins with as JSON, if anything: what follows it, some readers pass over."""
    try:
        return [_LENIENT.raw_decode(_begun(text))[0]]
    except RecursionError:
        raise ValueError("a text that is JSON is nested too deep") from None
    except ValueError:
        return []
