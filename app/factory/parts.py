"""Parts that are made from the settings alone, and what only they can tell of them."""

import ssl
from pathlib import Path

import httpx
from pydantic import SecretStr

from app.auth.api_keys import ApiKeys, KeySetting
from app.auth.local import LocalCheck
from app.auth.options import AuthOptions
from app.config import Settings
from app.config.faults import SettingsError
from app.config.redis_url import check_redis_files
from app.coze.credentials import secret_file_faults
from app.coze.transport import PooledClient, build_http_client


def ssl_context() -> ssl.SSLContext:
    """certifi's authorities and the machine's own, SSL_CERT_FILE among them: private ones are common."""
    context = httpx.create_ssl_context(trust_env=False)
    context.load_default_certs()
    return context


def auth_options(settings: Settings) -> AuthOptions:
    """Raises ``ValueError`` naming the setting that cannot work."""
    return AuthOptions(
        scheme=settings.http_scheme,
        roots=(settings.alchemy_host, settings.moicen_host, settings.huiwings_host, settings.local_host),
        verify_url=settings.verify_url or None,
        timeout=settings.auth_timeout,
        cache_ttl=settings.auth_cache_ttl,
        jwt_key=settings.jwt_key,
        admin_roles=frozenset(role.strip() for role in settings.admin_roles.split(",") if role.strip()),
    )


def api_keys(settings: Settings) -> ApiKeys:
    """Raises ``ValueError`` naming the setting that cannot work."""

    def source(name: str, listed: SecretStr | None, file: Path | None) -> KeySetting:
        return KeySetting(name, listed.get_secret_value() if listed is not None else "", file)

    return ApiKeys(
        source("COZE_API_KEYS", settings.api_keys, settings.api_keys_file),
        source("COZE_OPENAI_API_KEYS", settings.openai_api_keys, settings.openai_api_keys_file),
    )


def check_parts(settings: Settings) -> None:
    """What only the parts that use a setting can tell, before anything is opened.

    Raises:
        SettingsError: naming each setting that cannot work.
    """
    faults = secret_file_faults(settings)
    for part in (api_keys, auth_options, _local_check, _redis_files):
        try:
            part(settings)
        except ValueError as error:
            faults.append(str(error))
    if faults:
        raise SettingsError(*faults)


def _local_check(settings: Settings) -> None:
    if settings.enable_auth and settings.jwt_key is not None:
        LocalCheck(settings.jwt_key)


def _redis_files(settings: Settings) -> None:
    try:
        check_redis_files(settings.redis_url.get_secret_value())
    except ValueError as error:
        raise ValueError(f"REDIS_URL: {error}") from None


def coze_http(settings: Settings, transport: httpx.AsyncBaseTransport | None = None) -> PooledClient:
    """The client for all calls to Coze; ``transport``: instead of the one that the settings name."""
    if transport is not None:
        return PooledClient(transport, settings.connect_timeout)
    return build_http_client(
        connect_timeout=settings.connect_timeout,
        pool_size=settings.max_upstream_connections,
        transport=settings.transport,
        ssl_context=ssl_context(),
        proxy=settings.proxy.get_secret_value() if settings.proxy else None,
    )
