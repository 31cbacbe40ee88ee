"""The credentials for Coze: tokens, a token in a file, an OAuth app. Every one that is set is used."""

import httpx

from app.config import Settings
from app.coze.credentials.accounts import Accounts
from app.coze.credentials.oauth import TOKEN_PATH, OAuthApp, OAuthToken
from app.coze.credentials.sources import FileToken, StaticToken, TokenSource, read_token
from app.coze.wire import Endpoints

__all__ = ["Accounts", "OAuthApp", "OAuthToken", "build_accounts", "secret_file_faults"]


def build_accounts(settings: Settings, http: httpx.AsyncClient) -> Accounts:
    """One for each credential that is set.

    The first is the one that was there before there were several: conversations without a mark are its.
    ``http``: for the OAuth token endpoint.
    """
    sources: list[tuple[str, TokenSource]] = []
    if settings.api_token_file is not None:
        # The identity is the file's: what is in it is replaced by a new token of the same one.
        sources.append((str(settings.api_token_file), FileToken(settings.api_token_file)))
    elif (single := settings.api_token or settings.authorization) is not None:
        token = single.get_secret_value()
        sources.append((token, StaticToken(token)))
    for token in settings.several_tokens():
        if all(token != text for text, _ in sources):
            sources.append((token, StaticToken(token)))
    if settings.oauth_app_id and settings.oauth_key_id and settings.oauth_private_key_file:
        base = Endpoints.derive(settings.chat_url, settings.base_url or None).base
        app = OAuthApp(
            settings.oauth_app_id, settings.oauth_key_id, settings.oauth_private_key_file, base + TOKEN_PATH
        )
        sources.append((app.app_id, OAuthToken(app, http)))
    return Accounts(sources)


def secret_file_faults(settings: Settings) -> list[str]:
    """What is wrong with the files that the settings name, by the names of the settings."""
    named = {
        "COZE_API_TOKEN_FILE": settings.api_token_file,
        "COZE_OAUTH_PRIVATE_KEY_FILE": settings.oauth_private_key_file,
    }
    faults = []
    for name, path in named.items():
        if path is None:
            continue
        try:
            held = read_token(path) if name == "COZE_API_TOKEN_FILE" else path.read_bytes().strip()
        except OSError as error:
            faults.append(f"{name}: the file cannot be read ({error.strerror or type(error).__name__})")
        except UnicodeDecodeError:
            faults.append(f"{name}: the file is not UTF-8 text")
        except ValueError as error:
            faults.append(f"{name}: what is in the file {error}")
        else:
            if not held:
                faults.append(f"{name}: the file is empty")
    return faults
