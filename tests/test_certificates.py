"""A server whose certificate nobody vouches for: the reason is told wherever it is called."""

from __future__ import annotations

import asyncio
import datetime as dt
import ipaddress
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from app.auth.bounds import CannotAsk
from app.auth.options import AuthOptions, build_auth_client
from app.auth.service import AuthService
from app.check.store import check_redis
from app.coze.transport import (
    NETWORK_ERRORS,
    Outgoing,
    SecretHeaders,
    TransportName,
    build_http_client,
    network_error,
)
from app.utils.certificates import certificate_fault

from .support import make_settings


def _self_signed(path: Path, *, expired: bool = False) -> Path:
    """A key and its certificate for 127.0.0.1 in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test")])
    now = dt.datetime.now(dt.UTC)
    day = dt.timedelta(days=1)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - 9 * day)
        .not_valid_after(now - day if expired else now + day)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        + made.public_bytes(serialization.Encoding.PEM)
    )
    return path


@pytest_asyncio.fixture(params=["self-signed", "expired"])
async def server(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[tuple[int, str]]:
    """Its port, and the word that tells what is wrong with its certificate."""
    pem = _self_signed(tmp_path / "server.pem", expired=request.param == "expired")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)

    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(hang_up, "127.0.0.1", 0, ssl=context) as running:
        yield running.sockets[0].getsockname()[1], "certificate"


@pytest.mark.parametrize("transport", ["aiohttp", "httpx"])
async def test_a_call_to_coze_says_so(server: tuple[int, str], transport: TransportName) -> None:
    port, word = server
    async with build_http_client(connect_timeout=5, pool_size=1, transport=transport) as http:
        with pytest.raises(NETWORK_ERRORS) as caught:
            await http.exchange(Outgoing("GET", f"https://127.0.0.1:{port}/", SecretHeaders()))
    told = network_error(caught.value, 5)
    assert told.hint is not None
    assert word in told.hint
    assert "SSL_CERT_FILE" in told.hint
    assert not told.maybe_started
    assert str(port) not in told.hint


async def test_a_call_to_the_auth_service_says_so(server: tuple[int, str]) -> None:
    port, word = server
    options = AuthOptions(
        scheme="https://", roots=("localhost",), verify_url=f"https://127.0.0.1:{port}/verify"
    )
    async with build_auth_client(options) as http:
        with pytest.raises(CannotAsk) as caught:
            await AuthService(http, options).accepts("token", "localhost")
    assert word in str(caught.value)


async def test_the_check_of_coze_says_so(server: tuple[int, str]) -> None:
    port, word = server
    async with httpx.AsyncClient(trust_env=False) as http:
        with pytest.raises(httpx.HTTPError) as caught:
            await http.get(f"https://127.0.0.1:{port}/")
    assert word in certificate_fault(caught.value)
    assert certificate_fault(OSError("reset")) == ""


async def test_the_check_of_redis_says_so(server: tuple[int, str]) -> None:
    port, word = server
    lines = await check_redis(make_settings(REDIS_URL=f"rediss://127.0.0.1:{port}/0"), {})
    assert word in lines[0].text
    assert "ssl_ca_certs" in lines[0].text + lines[0].fix
