"""What a file is, by its first bytes; its declared type and its name are not asked.

A table of our own: three kinds and some thirty signatures are all that matters here, and the one thing a
library would add, refusing what a browser or a machine would run, it does not do.
"""

import re
import unicodedata
from typing import Final, NamedTuple

from app.exceptions import UnsupportedMediaType
from app.models.bodies import FileType

HEAD_BYTES: Final = 4096
"""How much of a file ``sniff`` wants to see."""
MAX_NAME: Final = 128
_MOST_OF_A_NAME: Final = 1024
"""Its end; normal forms take time by the square of the accents on one letter."""


class Kind(NamedTuple):
    """``endings``: what the name of such a file ends in, the usual one first; empty: anything harmless."""

    type: FileType
    mime: str
    endings: tuple[str, ...] = ()


_PNG: Final = Kind("image", "image/png", ("png",))
_ZIP: Final = Kind("file", "application/zip", ("zip", "epub", "numbers", "pages", "key", "odt", "ods", "odp"))
_OLE: Final = Kind("file", "application/x-ole-storage", ("doc", "xls", "ppt", "wps", "et", "dps"))
_TEXT: Final = Kind("file", "text/plain")
_OPEN_XML: Final = "application/vnd.openxmlformats-officedocument."

_STARTS: Final[tuple[tuple[bytes, Kind], ...]] = (
    (b"\x89PNG\r\n\x1a\n", _PNG),
    (b"\xff\xd8\xff", Kind("image", "image/jpeg", ("jpg", "jpeg", "jfif"))),
    (b"GIF87a", Kind("image", "image/gif", ("gif",))),
    (b"GIF89a", Kind("image", "image/gif", ("gif",))),
    (b"II*\0", Kind("image", "image/tiff", ("tiff", "tif"))),
    (b"MM\0*", Kind("image", "image/tiff", ("tiff", "tif"))),
    (b"ID3", Kind("audio", "audio/mpeg", ("mp3",))),
    (b"OggS", Kind("audio", "audio/ogg", ("ogg", "oga", "opus"))),
    (b"fLaC", Kind("audio", "audio/flac", ("flac",))),
    (b"#!AMR", Kind("audio", "audio/amr", ("amr",))),
    (b"MThd", Kind("audio", "audio/midi", ("mid", "midi"))),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", Kind("file", "video/x-ms-asf", ("wmv", "wma", "asf"))),
    (b"\x1aE\xdf\xa3", Kind("file", "video/webm", ("webm", "mkv"))),
    (b"FLV\x01", Kind("file", "video/x-flv", ("flv",))),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", _OLE),
    (b"{\\rtf", Kind("file", "application/rtf", ("rtf",))),
    (b"Rar!\x1a\x07", Kind("file", "application/vnd.rar", ("rar",))),
    (b"7z\xbc\xaf\x27\x1c", Kind("file", "application/x-7z-compressed", ("7z",))),
    (b"\x1f\x8b\x08", Kind("file", "application/gzip", ("gz", "tgz"))),
    (b"BZh", Kind("file", "application/x-bzip2", ("bz2",))),
)
_RIFF: Final = {
    b"WEBP": Kind("image", "image/webp", ("webp",)),
    b"WAVE": Kind("audio", "audio/wav", ("wav",)),
    b"AVI ": Kind("file", "video/x-msvideo", ("avi",)),
}
_BRANDS: Final = {
    **dict.fromkeys((b"heic", b"heix", b"mif1", b"msf1"), Kind("image", "image/heic", ("heic", "heif"))),
    **dict.fromkeys((b"avif", b"avis"), Kind("image", "image/avif", ("avif",))),
    **dict.fromkeys((b"M4A ", b"M4B "), Kind("audio", "audio/mp4", ("m4a",))),
    b"qt  ": Kind("file", "video/quicktime", ("mov",)),
}
_VIDEO: Final = Kind("file", "video/mp4", ("mp4", "m4v", "3gp"))
_OFFICE: Final = (
    (b"word/", Kind("file", f"{_OPEN_XML}wordprocessingml.document", ("docx",))),
    (b"xl/", Kind("file", f"{_OPEN_XML}spreadsheetml.sheet", ("xlsx",))),
    (b"ppt/", Kind("file", f"{_OPEN_XML}presentationml.presentation", ("pptx",))),
)

_PROGRAMS: Final = (
    *(b"\x7fELF", b"\xfe\xed\xfa\xce", b"\xfe\xed\xfa\xcf", b"\xce\xfa\xed\xfe", b"\xcf\xfa\xed\xfe"),
    *(b"\xca\xfe\xba\xbe", b"\0asm", b"dex\n", b"MSCF", b"L\0\0\0\x01\x14\x02\0"),
)
_ACTIVE: Final = re.compile(
    rb"<(?:!doctype\s+html|html|head|body|script|iframe|svg|\w+:svg|!doctype\s+svg)[\s>/:]", re.IGNORECASE
)
"""Markup that a browser runs, at the beginning of a file or behind a prolog and comments."""
_ACTIVE_ENDINGS: Final = frozenset(
    {
        *("html", "htm", "xhtml", "shtml", "mht", "mhtml", "hta", "svg", "svgz"),
        *("exe", "dll", "com", "scr", "msi", "bat", "cmd", "ps1", "vbs", "jar", "apk", "lnk"),
    }
)
_CONTROLS: Final = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_ENCODINGS: Final = ("utf-8", "gb18030")
"""What text is written in; half a character at the end of what was looked at is no fault."""
_BEFORE: Final = b"\xef\xbb\xbf\xff\xfe \t\r\n\f"
_UTF16: Final = (b"\xff\xfe", b"\xfe\xff")


def sniff(head: bytes) -> Kind:
    """The kind of a file that begins with ``head``.

    Raises ``UnsupportedMediaType`` for programs, for HTML and SVG, and for what is none of the known kinds.
    """
    for start, kind in _STARTS:
        if head.startswith(start):
            return kind
    if head[:4] == b"RIFF" and (kind_or_none := _RIFF.get(head[8:12])):
        return kind_or_none
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], _VIDEO)
    if head[:4] == b"PK\x03\x04":
        return next((kind for mark, kind in _OFFICE if mark in head), _ZIP)
    if b"%PDF-" in head[:1024]:
        return Kind("file", "application/pdf", ("pdf",))
    if head[:2] == b"BM" and head[6:10] == b"\0\0\0\0":
        return Kind("image", "image/bmp", ("bmp",))
    if len(head) > 2 and head[0] == 0xFF and head[1] in (0xF1, 0xF9):
        return Kind("audio", "audio/aac", ("aac",))
    if len(head) > 2 and head[0] == 0xFF and head[1] in (0xFA, 0xFB, 0xF2, 0xF3, 0xE2, 0xE3):
        return Kind("audio", "audio/mpeg", ("mp3",))
    if head.startswith(_PROGRAMS) or (head[:2] == b"MZ" and _CONTROLS.search(head)):
        raise UnsupportedMediaType("Programs are not taken")
    if not _is_text(head):
        raise UnsupportedMediaType("This type of file is not known")
    text = head.replace(b"\0", b"").lstrip(_BEFORE)  # UTF-16, too
    if text.startswith(b"<") and _ACTIVE.search(text):
        raise UnsupportedMediaType("HTML and SVG are not taken; send text, or a PNG")
    return _TEXT


def _is_text(head: bytes) -> bool:
    if head.startswith(_UTF16):
        return True
    if _CONTROLS.search(head):
        return False
    for encoding in _ENCODINGS:
        for cut in range(min(4, len(head))):
            try:
                head[: len(head) - cut].decode(encoding)
            except UnicodeDecodeError:
                if len(head) < HEAD_BYTES:
                    break
            else:
                return True
    return False


def clean_name(name: str, kind: Kind) -> str:
    """A name without directories, control characters and changes of direction, of at most ``MAX_NAME``
    characters, whose ending fits what the file is: Coze goes by it."""
    name = unicodedata.normalize("NFC", name[-_MOST_OF_A_NAME:]).replace("\\", "/").rpartition("/")[2]
    name = "".join(char for char in name if unicodedata.category(char)[0] not in "CZ" or char == " ")
    name = name.strip(" .")
    stem, dot, ending = name.rpartition(".")
    if not dot:
        stem, ending = name, ""
    lower = ending.lower()
    fits = lower in kind.endings if kind.endings else bool(lower) and lower not in _ACTIVE_ENDINGS
    if not fits or len(ending) > 16:
        # Only after the whole name: "photo.exe" that is a PNG becomes "photo.exe.png".
        stem, ending = name, kind.endings[0] if kind.endings else "txt"
    return f"{stem[: MAX_NAME - len(ending) - 1].rstrip(' .') or 'file'}.{ending}"
