"""Values that nobody should send, for any field of any body. Everything here is raw JSON text."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

_TEXTS = [
    *(
        "",
        " ",
        "\x00",
        "a\x00b",
        "\r\n",
        "\u2028",
        "\u202e",
        "\x1b[2J",
        "\ufeff",
        "\uffff",
        "🙂" * 50,
        "e\u0301" * 99,
    ),
    *(
        "../../etc/passwd",
        "{{7*7}}",
        "${jndi:ldap://x}",
        "' OR 1=1 --",
        "<script>alert(1)</script>",
        "%s%n%x",
    ),
    *("*", "{00}", "coze:{00}:session:x", "EVAL", "\r\nFLUSHALL\r\n", "__proto__", "null", "NaN", "-0"),
    *("text", "user", "question", "object_string", "[]", "[{}]", '[{"file_url": 1}]', "true", "enqueue"),
    *("a" * n for n in (63, 64, 65, 127, 128, 129, 255, 511, 512, 513, 4000, 4001, 100_001)),
]
_RAW = [
    *("null", "true", "false", "0", "-1", "1", "0.1", "-0.0", "1e308", "1e999", "-1e999", "NaN", "Infinity"),
    *(
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551616",
        "1" + "0" * 400,
        "-" + "9" * 4000,
    ),
    *(
        "[]",
        "{}",
        "[null]",
        "[[]]",
        "[{}]",
        '{"":""}',
        '{"a":null}',
        '{"a":{}}',
        '{"a":1}',
        '{"a":"b"}',
        '[""]',
        "[1]",
    ),
    *(
        r'"\ud800"',
        r'"\udc00\ud800"',
        r'{"\ud800":"x"}',
        r'"\u0000"',
        r'["\udfff"]',
        '"\\x"',
        '"',
        "[",
        "{",
        "",
        "tru",
    ),
    *('{"a":1,"a":2}', '[{"role":"user"}]', '[{"role":"user","content":"x","content_type":"object_string"}]'),
    *("[" * n + "]" * n for n in (10, 63, 64, 65, 127, 128, 199, 200, 201, 255, 1000, 100_000)),
    *('{"a":' * n + "1" + "}" * n for n in (10, 65, 150, 201, 1000, 50_000)),
    "[" + ",".join(["0"] * 100_000) + "]",
    "{" + ",".join(f'"k{n}":"v"' for n in range(20_000)) + "}",
    "[" + ",".join(['{"role":"user","content":"x"}'] * 101) + "]",
    '"' + "a" * 900_000 + '"',
]
_BYTES = [b'"\xff\xfe"', b'"\xed\xa0\x80"', b'"\xc0\x80"', b"\x00", b"\xef\xbb\xbf{}", b'"\xf4\x90\x80\x80"']
HUGE = b'"' + b"a" * (10 * 1024 * 1024) + b'"'


def fixed() -> list[bytes]:
    return [json.dumps(text).encode() for text in _TEXTS] + [raw.encode() for raw in _RAW] + _BYTES


def grown(seed: int) -> Iterator[bytes]:
    """Without end: random JSON, and random damage to it. The seed is all that it depends on."""
    chance = random.Random(seed)
    basis = [value for value in fixed() if len(value) < 3000]
    while True:
        value = _value(chance, 4).encode("utf-8", "surrogatepass")
        kind = chance.random()
        if kind < 0.2:
            value = chance.choice(basis)
        if kind < 0.35 and value:
            at = chance.randrange(len(value))
            value = value[:at] + bytes([chance.randrange(256)]) + value[at + chance.randrange(2) :]
        yield value


def _value(chance: random.Random, depth: int) -> str:
    match chance.randrange(7 if depth else 5):
        case 0:
            return chance.choice(["null", "true", "false"])
        case 1:
            return str(
                chance.choice(
                    [chance.randrange(-5, 5), chance.randrange(-(1 << 70), 1 << 70), chance.random()]
                )
            )
        case 2:
            return json.dumps(chance.choice(_TEXTS))
        case 3 | 4:
            points = [chance.choice([chance.randrange(0x250), chance.randrange(0x11_0000)]) for _ in range(5)]
            return json.dumps("".join(map(chr, points)), ensure_ascii=chance.random() < 0.5)
        case 5:
            return "[" + ",".join(_value(chance, depth - 1) for _ in range(chance.randrange(4))) + "]"
        case _:
            names = [
                "role",
                "content",
                "content_type",
                "type",
                "meta_data",
                "tool_call_id",
                "output",
                "",
                "a",
                "🙂",
            ]
            pairs = (
                f"{json.dumps(chance.choice(names))}:{_value(chance, depth - 1)}"
                for _ in range(chance.randrange(4))
            )
            return "{" + ",".join(pairs) + "}"


# -- where they go -----------------------------------------------------------------------------------------

_HOLE = "<<here>>"


def split_at_each_place(body: Any) -> list[tuple[bytes, bytes]]:
    """For the body itself and each part of it: the JSON in front of that place, and the JSON behind it."""
    hole = json.dumps(_HOLE).encode()
    return [tuple(json.dumps(shape).encode().split(hole)) for shape in _holes(body)]  # type: ignore[misc]


def _holes(value: Any) -> Iterator[Any]:
    """The value with a hole in the place of itself and of each part."""
    yield _HOLE
    if isinstance(value, dict):
        for key in value:
            for inner in _holes(value[key]):
                yield {**value, key: inner}
    elif isinstance(value, list):
        for inner in _holes(value[0]):
            yield [inner]
