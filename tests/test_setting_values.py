"""What people write into settings: what is cleaned, and what is refused by name, never by value."""

from __future__ import annotations

import asyncio
import io
import json
import os
import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from app.config import load_settings, unknown_names
from app.config.faults import SettingsError, read_env_file
from app.config.redis_url import parse_redis_url
from app.config.values import checked_origins, checked_tokens, clean_token
from app.coze.transport import TransportName, build_http_client
from app.factory.parts import check_parts
from app.http.listening import listen
from app.logging_config import write_stdout
from app.redis_client.servers import open_sentinel, open_single

from .support import make_settings
from .support.ports import free_port
from .support.service import clean_environment

ROOT = Path(__file__).resolve().parents[1]
SECRET = "S3cretPiece"


@pytest.mark.parametrize(
    "written",
    [
        *("pat_x", '"pat_x"', "'pat_x'", "\u201cpat_x\u201d", "`pat_x`", "Bearer pat_x", "bearer  pat_x"),
        *('"Bearer pat_x"', 'Bearer "pat_x"', "Authorization: Bearer pat_x", "Bearer Bearer pat_x"),
        *(" pat_x\r\n", "\ufeffpat_x", "\"'pat_x'\""),
    ],
)
def test_what_is_wrapped_around_a_token_is_taken_off(written: str) -> None:
    assert clean_token(written) == "pat_x"


@pytest.mark.parametrize(
    "listed",
    ["pat_a,pat_b", '"pat_a,pat_b"', "Bearer pat_a, Bearer pat_b", '"pat_a","pat_b"', "pat_a\npat_b,pat_a,"],
)
def test_a_list_of_tokens_is_cleaned_one_by_one(listed: str) -> None:
    assert checked_tokens(listed) == ["pat_a", "pat_b"]
    assert make_settings(COZE_API_TOKENS=listed).several_tokens() == ["pat_a", "pat_b"]


@pytest.mark.parametrize(
    ("url", "chat", "base"),
    [
        ("https://api.coze.cn", "https://api.coze.cn/v3/chat", ""),
        ("https://api.coze.cn/", "https://api.coze.cn/v3/chat", ""),
        ("https://api.coze.cn/v3", "https://api.coze.cn/v3/chat", ""),
        ("https://api.coze.cn/v3/chat/", "https://api.coze.cn/v3/chat", ""),
        ("http://h:1/coze", "http://h:1/coze/v3/chat", ""),
        ("http://h:1/coze/v3/", "http://h:1/coze/v3/chat", ""),
        ("http://v3", "http://v3/v3/chat", ""),
        ("http://[::1]:1", "http://[::1]:1/v3/chat", ""),
        ("http://h/chat", "http://h/chat", "http://h"),
        ("http://h", "http://h/v3/chat", "http://h/v3"),
    ],
)
def test_the_address_of_coze_may_be_the_bare_one(url: str, chat: str, base: str) -> None:
    settings = make_settings(COZE_API_URL=url, COZE_BASE_URL=base)
    assert settings.chat_url == chat
    check_parts(settings)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("COZE_API_URL", f"https://u:{SECRET}@h"),
        ("COZE_API_URL", f"https://h/v3/chat?token={SECRET}"),
        ("COZE_API_URL", f"https://h/{SECRET}/open_api/v2/chat"),
        ("COZE_API_URL", f"https://{SECRET}:99999/v3/chat"),
        ("COZE_API_URL", f"https://[{SECRET}/v3/chat"),
        ("COZE_BASE_URL", f"{SECRET}.example"),
        ("COZE_PROXY", f"socks5://u:{SECRET}@h:1"),
        ("COZE_PROXY", f"http://u:{SECRET}/@h:1"),
        ("REDIS_URL", f"redis://:{SECRET}#x@h:1/0"),
        ("REDIS_URL", f"redis://:1/{SECRET}@h:1/0"),
        ("REDIS_URL", f"redis://u:1?{SECRET}@h:1/0"),
        ("REDIS_URL", f"redis://:{SECRET}[@h:1/0"),
        ("REDIS_URL", f"redis://:{SECRET}\uff20h:1/0"),
        ("REDIS_URL", f"redis://:{SECRET}@h\uff1a1/0"),
        ("REDIS_URL", f"redis://:{SECRET} @h:1/0"),
        ("REDIS_URL", f"unix://{SECRET}/redis.sock"),
        ("REDIS_URL", f"unix://u:a#{SECRET}@/redis.sock"),
        ("REDIS_URL", f"redis://h/0?{SECRET}=1"),
        ("REDIS_URL", f"redis://:{SECRET}@h/0?socket_timeout={SECRET}"),
        ("REDIS_URL", f"redis://:{SECRET}@h/0?max_connections={SECRET}"),
        ("REDIS_URL", f"redis://:{SECRET}@h/0?db={SECRET}"),
        ("REDIS_URL", f"redis://:{SECRET}@h/0?protocol=4"),
        ("REDIS_URL", f"redis://:{SECRET}@h/0?socket_timeout=0"),
        ("REDIS_URL", f"redis://:{SECRET}@h/0?timeout=nan"),
        ("REDIS_URL", f"redis://:{SECRET}@h/0?health_check_interval=0.5"),
        ("REDIS_URL", f"redis://:{SECRET}@h/0?retry_on_timeout={SECRET}"),
        ("REDIS_URL", f"redis://:{SECRET}@h/0?ssl_cert_reqs=none"),
        ("REDIS_URL", f"rediss://:{SECRET}@h/0?ssl_cert_reqs={SECRET}"),
        ("REDIS_URL", f"rediss://:{SECRET}@h/0?ssl_min_version=TLSv1_2"),
        ("REDIS_URL", f"rediss://:{SECRET}@h/0?ssl_include_verify_flags={SECRET}"),
        ("REDIS_URL", f"unix://:{SECRET}@/redis.sock?socket_keepalive=1"),
        ("REDIS_URL", f"redis+sentinel://:{SECRET}@h:1,i:2/m/0?socket_connect_timeout=-1"),
        ("REDIS_URL", f"redis+cluster://:{SECRET}@h:1,i:2?max_connections=0"),
        ("COZE_API_URL", f"https://www.coze.cn/{SECRET}"),
        ("COZE_BASE_URL", "https://coze.com"),
        ("COZE_API_URL", f"https://api.coze.cn\\{SECRET}"),
        ("COZE_API_TOKEN", f"${{{SECRET}}}"),
        ("COZE_API_TOKEN", f"<{SECRET}>"),
        ("COZE_API_TOKENS", f"pat_{SECRET};pat_b"),
        ("COZE_API_TOKEN", f"pat_{SECRET} x"),
        ("COZE_API_TOKEN", f"pat_{SECRET}\u4e2d"),
        ("COZE_API_TOKENS", f"pat_a,pat_{SECRET}\u4e2d"),
        ("COZE_BOTS", f"{SECRET}:1,{SECRET}:2"),
        ("CORS_ALLOW_ORIGINS", f"{SECRET}.example"),
        ("COZE_BOT_ID", f"{SECRET} 7"),
        ("COZE_LOG_LEVEL", SECRET),
        ("PORT", SECRET),
        ("HTY_VERIFY_URL", f"https://h:{SECRET}/"),
    ],
)
def test_a_setting_that_cannot_work_is_named_without_a_piece_of_its_value(name: str, value: str) -> None:
    with pytest.raises(SettingsError) as refused:
        make_settings(**{name: value})
    said = str(refused.value)
    assert said.startswith(f"configuration: {name}: ")
    assert SECRET.lower() not in said.lower()
    assert "\n" not in said
    for internal in ("Value error", "pydantic", "pattern", "Traceback"):
        assert internal not in said


@pytest.mark.parametrize(
    "url",
    [
        "redis://h/0?socket_timeout=2.5&socket_connect_timeout=1&timeout=3",
        "redis://h/0?max_connections=64&health_check_interval=0&socket_read_size=4096",
        "redis://h?db=3&protocol=3&client_name=x",
        "redis://h/0?socket_keepalive=True&retry_on_timeout=no",
        "redis://h/0?socket_timeout=",
        "rediss://h/0?ssl_cert_reqs=none&ssl_check_hostname=false",
        "rediss://h/0?ssl_min_version=771&ssl_ciphers=HIGH",
        "rediss://h/0?ssl_include_verify_flags=VERIFY_X509_STRICT,VERIFY_X509_PARTIAL_CHAIN",
        "unix:///redis.sock?db=3&socket_timeout=1",
        "rediss+sentinel://h:1,i:2/m/0?ssl_cert_reqs=required&sentinel_password=x",
    ],
)
async def test_what_is_taken_behind_the_address_of_redis_is_taken_by_its_client_too(url: str) -> None:
    address = parse_redis_url(url)
    servers = (open_sentinel if address.kind == "sentinel" else open_single)(
        address, pool_size=4, reply_timeout=1
    )
    await servers.close()


@pytest.mark.parametrize("name", ["ssl_ca_certs", "ssl_certfile", "ssl_keyfile"])
def test_a_file_of_the_address_of_redis_that_cannot_be_read_is_named(name: str, tmp_path: Path) -> None:
    there = tmp_path / f"{SECRET}.pem"
    settings = make_settings(REDIS_URL=f"rediss://:{SECRET}@h/0?{name}={there}")
    with pytest.raises(SettingsError, match=f"REDIS_URL: the file of {name} cannot be read") as refused:
        check_parts(settings)
    assert SECRET not in str(refused.value)
    there.write_text("x")
    check_parts(settings)


@pytest.mark.parametrize("end", ["", "/", "/v1/traces", "/v1/traces/"])
def test_the_collector_is_named_with_and_without_the_path_of_traces(end: str) -> None:
    settings = make_settings(OTEL_EXPORTER_OTLP_ENDPOINT=f"http://otel:4318/x{end}")
    assert settings.otel_endpoint == "http://otel:4318/x"


@pytest.mark.parametrize(
    ("listed", "origins"),
    [
        ("https://a.example/", ["https://a.example"]),
        ("HTTPS://A.example:443, http://b:80", ["https://a.example", "http://b"]),
        ("*", ["*"]),
        ('"http://localhost:3000"', ["http://localhost:3000"]),
        ("http://[::1]:3000", ["http://[::1]:3000"]),
        ("capacitor://localhost,null", ["capacitor://localhost", "null"]),
    ],
)
def test_origins_are_written_as_browsers_write_them(listed: str, origins: list[str]) -> None:
    assert checked_origins(listed) == origins


@pytest.mark.parametrize("listed", ["a.example", "https://*.a.example", "https://a/b", "https://a?b", "//a"])
def test_an_origin_that_can_match_no_page_is_refused(listed: str) -> None:
    with pytest.raises(ValueError, match="entry 1 can match no page"):
        checked_origins(listed)


@pytest.mark.parametrize(
    "name", ["COZE_TIMEOUT", "PORT", "HOST", "REDIS_URL", "ENABLE_AUTH", "OTEL_SERVICE_NAME"]
)
@pytest.mark.parametrize("blank", ["", "  ", '""'])
def test_an_empty_value_is_the_default(name: str, blank: str) -> None:
    required = {"COZE_API_TOKEN": "pat_x", "COZE_BOT_ID": "1", "_env_file": None}
    with clean_environment():
        assert load_settings(**required, **{name: blank}) == load_settings(**required)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "gbk"])
def test_an_env_file_in_another_encoding_is_told(encoding: str, tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_bytes("# 中文\nCOZE_API_TOKEN=pat_x\n".encode(encoding))
    with pytest.raises(SettingsError, match=r"\.env: is not UTF-8"):
        load_settings(_env_file=path)
    path.write_bytes("COZE_API_TOKEN=pat_x\n".encode("utf-8-sig"))
    assert read_env_file(path) == {"COZE_API_TOKEN": "pat_x"}
    path.unlink()
    path.mkdir()
    with pytest.raises(SettingsError, match=r"\.env: cannot be read"):
        load_settings(_env_file=path)


def test_a_name_that_is_close_to_ours_is_told_with_the_right_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with clean_environment():
        (tmp_path / ".env").write_text("COZE_TIMOUT=1\ncoze_bot_id=2\nHOST_PORT=1\nDATABASE=x\n")
        monkeypatch.setenv("REDIS_POOLSIZE", "1")
        told = unknown_names(tmp_path / ".env")
    assert [text.rpartition(" ")[2] for text in told] == ["COZE_TIMEOUT?", "COZE_BOT_ID?", "REDIS_POOL_SIZE?"]


@pytest.mark.parametrize("content", [None, b"", b'""', b"\xff\xfe", "pat_中".encode(), b"pat_a pat_b"])
def test_a_token_file_that_holds_no_token_is_named(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match="COZE_API_TOKEN_FILE") as refused:
        check_parts(make_settings(COZE_API_TOKEN_FILE=str(path)))
    assert "pat_" not in str(refused.value)


@pytest.mark.parametrize(
    "host", ["192.0.2.1", "http://h", "no such host", "a..b", "127.0.0.1:80", "256.1.1.1"]
)
def test_a_host_that_cannot_be_had_is_named(host: str) -> None:
    with pytest.raises(SettingsError, match="HOST"):
        listen(host, free_port())


def test_a_port_that_is_taken_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, pytest.raises(SettingsError, match="PORT: "):
        listen("127.0.0.1", other.getsockname()[1])


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere workers share one socket")
def test_of_two_services_with_workers_that_begin_together_one_is_refused() -> None:
    address = ("127.0.0.1", free_port())
    with socket.socket() as other, ExitStack() as ours:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(address)
        for kept in listen(*address, workers=2):
            ours.enter_context(kept)
            with pytest.raises(OSError, match="in use"):
                other.listen()
            with pytest.raises(ConnectionRefusedError):  # nobody listens before a worker does
                socket.create_connection(address, 10)
        with pytest.raises(SettingsError, match="PORT: "):
            listen(*address, workers=2)


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="this machine has no IPv6")
def test_two_colons_serve_both_families() -> None:
    port = free_port()
    for bound in listen("::", port):
        with bound:
            bound.listen()
            for address in ("127.0.0.1", "::1"):
                socket.create_connection((address, port), 10).close()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "gbk", "cp1252", "utf-8"])
def test_no_line_is_lost_in_the_encoding_of_stdout(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(out, encoding=encoding))
    write_stdout('{"a":"中文 \U0001f600 é"}\n')
    said = out.getvalue().decode(encoding)
    assert said.count("\n") == 1
    assert json.loads(said) == {"a": "中文 \U0001f600 é"}


def test_check_ends_with_its_status_where_stdout_has_no_chinese(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "app.check"],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii", "PORT": "x"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.returncode == 2
    assert "PORT: must be a whole number" in done.stdout
    assert done.stderr == ""


# httpx-aiohttp gives aiohttp the login in a form that aiohttp 4 will not take any more.
@pytest.mark.filterwarnings("ignore:.*(BasicAuth|proxy_auth).* is deprecated")
@pytest.mark.parametrize("transport", ["aiohttp", "httpx"])
async def test_a_proxy_that_is_set_takes_the_calls(transport: TransportName) -> None:
    asked: list[bytes] = []

    async def proxy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(proxy, "127.0.0.1", 0) as server:
        address = f"http://me:pw%21@127.0.0.1:{server.sockets[0].getsockname()[1]}"
        http = build_http_client(connect_timeout=5, pool_size=2, transport=transport, proxy=address)
        async with http:
            response = await http.get("http://coze.invalid/v3/chat/retrieve")
    assert response.text == "{}"
    assert asked[0].startswith(b"GET http://coze.invalid/v3/chat/retrieve ")
    assert b"basic bWU6cHch" in asked[0].replace(b"Basic", b"basic")  # me:pw!
