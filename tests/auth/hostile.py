"""What somebody who wants in, or wants our token elsewhere, would send."""

from __future__ import annotations

import hashlib
import hmac
import time
from typing import Any

from .helpers import encoded, sub

HOSTILE_HOSTS: dict[str, bytes] = {
    "prefix glued to the root": b"evil-moicen.com",
    "prefix without a hyphen": b"evilmoicen.com",
    "root as a prefix": b"moicen.com.evil.io",
    "root as a label elsewhere": b"moicen.evil.io",
    "root in the path": b"evil.io/moicen.com",
    "root in the query": b"evil.io?moicen.com",
    "root in the fragment": b"evil.io#moicen.com",
    "root in the fragment with a dot": b"evil.io#.moicen.com",
    "root as user": b"moicen.com@evil.io",
    "root as user and password": b"moicen.com:443@evil.io",
    "somebody as user of the root": b"evil.io@moicen.com",
    "path on the root": b"moicen.com/..",
    "slash at the end": b"moicen.com/",
    "backslash": b"evil.io\\.moicen.com",
    "backslash at the end": b"moicen.com\\",
    "scheme": b"https://moicen.com",
    "scheme-relative": b"//moicen.com",
    "trailing dot": b"moicen.com.",
    "leading dot": b".moicen.com",
    "empty label": b"music..moicen.com",
    "only dots": b"...",
    "leading hyphen": b"-a.moicen.com",
    "trailing hyphen": b"a-.moicen.com",
    "underscore": b"a_b.moicen.com",
    "star": b"*.moicen.com",
    "percent": b"a%2emoicen.com",
    "percent slash": b"evil.io%2f.moicen.com",
    "percent zero": b"evil.io%00.moicen.com",
    "space inside": b"evil.io moicen.com",
    "no-break space in front": b"\xa0moicen.com",
    "form feed behind": b"moicen.com\x0c",
    "tab": b"evil.io\t.moicen.com",
    "CR LF": b"moicen.com\r\nHtyHost: evil.io",
    "LF at the end": b"moicen.com\n",
    "CR": b"evil.io\r.moicen.com",
    "NUL": b"moicen.com\x00",
    "NUL inside": b"evil.io\x00.moicen.com",
    "DEL": b"a\x7f.moicen.com",
    "comma": b"moicen.com,evil.io",
    "comma and space": b"evil.io, moicen.com",
    "semicolon": b"evil.io;.moicen.com",
    "no port": b"moicen.com:",
    "port 0": b"moicen.com:0",
    "port 65536": b"moicen.com:65536",
    "port with sign": b"moicen.com:+80",
    "negative port": b"moicen.com:-1",
    "port of letters": b"moicen.com:http",
    "two ports": b"moicen.com:80:80",
    "port with a path": b"moicen.com:80/x",
    "port with leading zeros": b"moicen.com:00080",
    "port of Arabic digits": "moicen.com:٨٠".encode(),
    "endless port": b"moicen.com:" + b"1" * 5000,
    "Cyrillic o": "mоicen.com".encode(),
    "Kelvin sign": "\u212amoicen.com".encode(),
    "full-width": "ｍoicen.com".encode(),
    "ideographic full stop": "evil.io。moicen.com".encode(),
    "soft hyphen": b"moi\xadcen.com",
    "latin-1": b"mo\xefcen.com",
    "zero width space": "moicen\u200b.com".encode(),
    "right to left": "moc.\u202enecoim".encode(),
    "emoji": "😀.moicen.com".encode(),
    "punycode of another": b"xn--micen-0ra.com",
    "label of 64": b"a" * 64 + b".moicen.com",
    "name of 254": b".".join([b"a" * 60] * 3 + [b"a" * 60, b"moicen.com"])[-254:].replace(b".a", b"aa", 1),
    "64 KiB": b"a." * 32_768 + b"moicen.com",
    "IPv4": b"127.0.0.1",
    "metadata service": b"169.254.169.254",
    "decimal IPv4": b"2130706433",
    "IPv6": b"[::1]",
    "IPv6 with a port": b"[::1]:443",
    "IPv6 zone": b"[fe80::1%25moicen.com]",
    "other top level": b"moicen.co",
    "root cut short": b"oicen.com",
    "top level alone": b"com",
    "another's subdomain": b"admin.evil.io",
    "root of nobody": b"localhost.evil.io",
    "local domain": b"localhost.localdomain",
    "null": b"null",
    "quoted": b'"moicen.com"',
    "bracketed": b"[moicen.com]",
    "JSON": b'["moicen.com"]',
    "regex": b"moicenxcom",
    "CRLF encoded": b"moicen.com%0d%0aHtyHost:evil.io",
}
"""As header bytes. None is a host of ours."""


def signed(header: Any, claims: Any, key: str, digest: str = "sha256") -> str:
    """Any header over any claims, with a right signature."""
    text = f"{encoded(header)}.{encoded(claims)}"
    return f"{text}.{encoded(hmac.new(key.encode(), text.encode(), digest).digest())}"


def malformed_tokens(good: str, key: str) -> dict[str, bytes]:
    """No JWT of the auth service's kind: nobody needs to be asked."""
    head, body, tail = good.split(".")
    claims = {"sub": sub(), "exp": time.time() + 3600, "iat": time.time()}
    wide = "Ａ".encode()
    texts = {
        "one part": head,
        "two parts": f"{head}.{body}",
        "four parts": f"{good}.{tail}",
        "five parts (JWE)": f"{good}.{tail}.{tail}",
        "no signature": f"{head}.{body}.",
        "no payload": f"{head}..{tail}",
        "no header": f".{body}.{tail}",
        "dots": "..",
        "doubled": good + good,
        "doubled with a comma": f"{good},{good}",
        "doubled with comma and space": f"{good}, {good}",
        "doubled with a space": f"{good} {good}",
        "Bearer in front": f"Bearer {good}",
        "Basic in front": f"Basic {good}",
        "quoted": f'"{good}"',
        "no-break space in front": f"\xa0{good}",
        "form feed behind": f"{good}\x0c",
        "tab inside": f"{head}.\t{body}.{tail}",
        "newline behind": f"{good}\n",
        "CR LF and a header": f"{good}\r\nHtyHost: evil.io",
        "NUL behind": f"{good}\0",
        "padding": f"{head}.{body}.{tail}=",
        "plain base64": f"{head}.{body}+/.{tail}",
        "percent": f"{head}%2e{body}.{tail}",
        "header is no base64": f"a.{body}.{tail}",
        "header is no JSON": f"{encoded('{alg')}.{body}.{tail}",
        "header is a list": f"{encoded(['HS256'])}.{body}.{tail}",
        "header is a text": f"{encoded('x')}.{body}.{tail}",
        "header is null": f"{encoded('null')}.{body}.{tail}",
        "header nests deeply": f"{encoded('[' * 5000)}.{body}.{tail}",
        "header nests in alg": encoded('{"alg":' + "[" * 2000) + f".{body}.{tail}",
        "header has NaN": encoded('{"alg":"HS256","x":NaN}') + f".{body}.{tail}",
        "no alg": signed({"typ": "JWT"}, claims, key),
        "alg none": f"{encoded({'alg': 'none'})}.{body}.",
        "alg none with a signature": signed({"alg": "none"}, claims, key),
        "alg None": signed({"alg": "None"}, claims, key),
        "alg NONE": signed({"alg": "NONE"}, claims, key),
        "alg nOnE": signed({"alg": "nOnE"}, claims, key),
        "alg empty": signed({"alg": ""}, claims, key),
        "alg null": signed({"alg": None}, claims, key),
        "alg true": signed({"alg": True}, claims, key),
        "alg a list": signed({"alg": ["HS256"]}, claims, key),
        "alg in lower case": signed({"alg": "hs256"}, claims, key),
        "alg with a space": signed({"alg": "HS256 "}, claims, key),
        "alg RS256, HMAC signature": signed({"alg": "RS256"}, claims, key),
        "alg ES256": signed({"alg": "ES256"}, claims, key),
        "alg PS256": signed({"alg": "PS256"}, claims, key),
        "alg EdDSA": signed({"alg": "EdDSA"}, claims, key),
        "alg HS1": signed({"alg": "HS1"}, claims, key, "sha1"),
        "alg HS256 then none": encoded('{"alg":"HS256","alg":"none"}') + f".{body}.{tail}",
        "16 KiB and one": "a" * (16 * 1024 + 1),
        "64 KiB": f"{head}.{'A' * 65_536}.{tail}",
        "64 KiB of dots": "." * 65_536,
        "64 KiB signature": f"{head}.{body}.{'A' * 65_536}",
        "100 KiB": "e" * 102_400,
        "a word": "null",
        "JSON": '{"token":"x"}',
        "path": "../../etc/passwd",
        "format string": "%s%n{}{0.__class__}",
    }
    raw = {name: text.encode() for name, text in texts.items()}
    raw["latin-1"] = f"{head}.{body}".encode() + b"\xe9." + tail.encode()
    raw["full-width letter"] = head.encode() + b"." + wide + b"." + tail.encode()
    raw["emoji"] = "😀.😀.😀".encode()
    raw["byte order mark"] = b"\xef\xbb\xbf" + good.encode()
    raw["no UTF-8"] = b"\xff\xfe." + body.encode() + b"." + tail.encode()
    return raw


def forged_tokens(good: str, key: str) -> dict[str, str]:
    """Of the right form: only the signature tells."""
    head, body, tail = good.split(".")
    claims = {"sub": sub(roles=[{"role_key": "ROOT"}]), "exp": time.time() + 3600, "iat": time.time()}
    flipped = ("B" if tail[0] == "A" else "A") + tail[1:]
    return {
        "another payload": f"{head}.{encoded(claims)}.{tail}",
        "another header": f"{encoded({'alg': 'HS256', 'typ': 'x'})}.{body}.{tail}",
        "signature flipped": f"{head}.{body}.{flipped}",
        "signature cut": f"{head}.{body}.{tail[:-4]}",
        "signature of one byte": f"{head}.{body}.AA",
        "signature of no base64": f"{head}.{body}.A",
        "signature too long": f"{head}.{body}.{tail}AAAA",
        "payload cut": f"{head}.{body[:-4]}.{tail}",
        "another key": signed({"alg": "HS256"}, claims, "another key of sufficient length, surely"),
        "empty key": signed({"alg": "HS256"}, claims, ""),
        "key from the header": signed({"alg": "HS256", "jwk": {"kty": "oct", "k": "AA"}}, claims, "\0"),
        "kid with a path": signed({"alg": "HS256", "kid": "../../dev/null"}, claims, ""),
        "kid with SQL": signed({"alg": "HS256", "kid": "' UNION SELECT 'x"}, claims, "x"),
        "jku elsewhere": signed({"alg": "HS256", "jku": "https://evil.io/jwks"}, claims, "x"),
        "HS256 called HS512": signed({"alg": "HS512"}, claims, key, "sha256"),
        "HS512 called HS256": signed({"alg": "HS256"}, claims, key, "sha512"),
        "plain SHA-256": f"{head}.{body}.{encoded(hashlib.sha256(f'{head}.{body}'.encode()).digest())}",
    }


SHOWN_BY_SHAPE = {
    *("signature cut", "signature of one byte", "signature of no base64", "signature too long"),
    *("payload cut", "HS256 called HS512", "HS512 called HS256"),
}
"""Forged ones that are no question to anybody."""


def unusable_claims(now: float) -> dict[str, Any]:
    """Rightly signed, and yet no identity; a text stands for itself, not for JSON of it."""
    good = {"sub": sub(), "exp": now + 3600, "iat": now}
    return {
        "expired": good | {"exp": now - 1},
        "expired this very moment": good | {"exp": now},
        "expired long ago": good | {"exp": 0},
        "exp negative": good | {"exp": -1e18},
        "exp a text": good | {"exp": str(now + 3600)},
        "exp true": good | {"exp": True},
        "exp null": good | {"exp": None},
        "exp a list": good | {"exp": [now + 3600]},
        "exp infinite": '{"sub":"{}","exp":1e999}',
        "exp NaN": '{"sub":"{}","exp":NaN}',
        "no exp": {"sub": sub()},
        "no sub": {"exp": now + 3600},
        "sub null": good | {"sub": None},
        "sub an object": good | {"sub": {"hty_id": "u-1"}},
        "sub a plain id": good | {"sub": "u-1"},
        "sub empty": good | {"sub": ""},
        "sub a list": good | {"sub": "[]"},
        "sub null in a text": good | {"sub": "null"},
        "sub nests deeply": good | {"sub": "[" * 5000},
        "hty_id empty": good | {"sub": sub(hty_id="")},
        "hty_id a number": good | {"sub": sub(hty_id=7)},
        "hty_id false": good | {"sub": sub(hty_id=False)},
        "hty_id a list": good | {"sub": sub(hty_id=["u-1"])},
        "hty_id with a newline": good | {"sub": sub(hty_id="u\n1")},
        "hty_id with a NUL": good | {"sub": sub(hty_id="u\0")},
        "hty_id too long": good | {"sub": sub(hty_id="u" * 129)},
        "payload a list": [good],
        "payload a text": '"x"',
        "payload no JSON": "{",
        "payload nests deeply": "[" * 9000,
        "payload no UTF-8": b'{"sub":"\xff"}',
    }
