"""The published OpenAPI: every route, every error of each, with examples that are true."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from app.doors.coze.errors import COZE_ERRORS
from app.doors.openai.bodies import ChatCompletionRequest
from app.doors.openai.errors import OPENAI_ERRORS, openai_error
from app.exceptions import ERROR_CLASSES
from app.main import create_app
from app.models.bodies import CreateSession, SendMessage

EVERYWHERE = {
    "AUTH_MISSING",
    "AUTH_INVALID",
    "AUTH_UNAVAILABLE",
    "COZE_REDIS_ERROR",
    "OVERLOADED",
    "INTERNAL_ERROR",
}
GONE = {"COZE_SESSION_NOT_FOUND", "COZE_SESSION_TERMINATED", "COZE_SESSION_EXPIRED"}
BODY = {"COZE_VALIDATION_ERROR", "BODY_TOO_LARGE", "UNSUPPORTED_MEDIA_TYPE"}
UPSTREAM = {"COZE_RATE_LIMITED", "COZE_API_ERROR", "COZE_QUOTA_EXHAUSTED", "COZE_TIMEOUT"}

ERRORS = {
    ("get", "/"): set(),
    ("get", "/coze/health"): {"COZE_REDIS_ERROR"},
    ("get", "/coze/health/live"): set(),
    ("get", "/coze/health/ready"): {"COZE_REDIS_ERROR", "SHUTTING_DOWN"},
    ("post", "/coze/sessions"): EVERYWHERE | BODY | {"SESSION_LIMIT_REACHED", "SHUTTING_DOWN"},
    ("get", "/coze/sessions/{session_id}"): EVERYWHERE | GONE | {"COZE_VALIDATION_ERROR"},
    ("delete", "/coze/sessions/{session_id}"): EVERYWHERE
    | {"COZE_SESSION_NOT_FOUND", "COZE_SESSION_EXPIRED"},
    ("post", "/coze/sessions/{session_id}/messages"): EVERYWHERE
    | BODY
    | GONE
    | UPSTREAM
    | {"COZE_SESSION_BUSY", "SHUTTING_DOWN"},
    ("get", "/coze/sessions/{session_id}/chats"): EVERYWHERE | GONE | {"COZE_VALIDATION_ERROR"},
    ("post", "/coze/openai/v1/chat/completions"): EVERYWHERE
    | BODY
    | GONE
    | UPSTREAM
    | {"MODEL_NOT_FOUND", "COZE_SESSION_BUSY", "SHUTTING_DOWN", "IDEMPOTENCY_KEY_REUSED"},
    ("get", "/coze/openai/v1/models"): EVERYWHERE,
    ("get", "/coze/chats/{chat_id}/result"): EVERYWHERE | {"COZE_CHAT_NOT_FOUND", "COZE_VALIDATION_ERROR"},
}
"""What each route can answer at least."""


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return create_app().openapi()


def operations(document: dict[str, Any]) -> Iterator[tuple[tuple[str, str], dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield (method, path), operation


def errors_of(operation: dict[str, Any], document: dict[str, Any]) -> dict[str, tuple[int, dict[str, Any]]]:
    """Code -> (status, the example's envelope)."""
    found = {}
    for status, response in operation["responses"].items():
        examples = response.get("content", {}).get("application/json", {}).get("examples", {})
        for code, example in examples.items():
            if int(status) >= 400:
                name = example["$ref"].removeprefix("#/components/examples/")
                found[code] = (int(status), document["components"]["examples"][name]["value"])
    return found


@pytest.mark.parametrize("route", ERRORS, ids=" ".join)
def test_every_error_of_a_route_is_listed(route: tuple[str, str], document: dict[str, Any]) -> None:
    method, path = route
    assert ERRORS[route] - errors_of(document["paths"][path][method], document).keys() == set()


def test_every_example_of_an_error_is_true(document: dict[str, Any]) -> None:
    for route, operation in operations(document):
        for code, (status, example) in errors_of(operation, document).items():
            error_class = ERROR_CLASSES[code]
            if route[1].startswith("/coze/openai/"):
                assert OPENAI_ERRORS.status(error_class()) == status, (route, code)
                assert example == openai_error(error_class())
                continue
            if route[1].startswith("/coze/api/"):
                assert COZE_ERRORS.status(error_class()) == status, (route, code)
                assert example.keys() == {"code", "msg", "detail"}
                continue
            assert error_class.status == status, (route, code)
            assert example["error"]["code"] == code
            assert (example["success"], example["data"]) == (False, None)
            assert example["error"]["retryable"] == error_class.retryable
            assert example["error"]["message"] == error_class.default_message


def test_every_listed_error_has_an_example(document: dict[str, Any]) -> None:
    for route, operation in operations(document):
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                assert response["content"]["application/json"].get("examples"), (route, status)


def test_no_route_lists_an_answer_that_it_never_gives(document: dict[str, Any]) -> None:
    for route, operation in operations(document):
        schemas = [
            content.get("schema", {}).get("$ref", "")
            for response in operation["responses"].values()
            for content in response.get("content", {}).values()
        ]
        assert not [ref for ref in schemas if ref.endswith("HTTPValidationError")], route


def test_every_route_that_needs_a_caller_says_how_he_shows_who_he_is(document: dict[str, Any]) -> None:
    hty, key = {"HtySudoerToken": [], "HtyHost": []}, {"Bearer": []}
    token_as_key = {"Bearer": [], "HtyHost": []}
    for route, operation in operations(document):
        ways = [hty, key] if "AUTH_MISSING" in errors_of(operation, document) else []
        if route[1].startswith("/coze/admin/"):
            ways = [hty]  # whoever has an API key is no administrator
        elif route[1].startswith("/coze/openai/") or route == ("delete", "/coze/users/{user_id}"):
            ways = [hty, key, token_as_key]
        assert operation["security"] == ways, route
    schemes = document["components"]["securitySchemes"]
    assert {(scheme.get("in"), scheme.get("name"), scheme["type"]) for scheme in schemes.values()} == {
        ("header", "HtySudoerToken", "apiKey"),
        ("header", "HtyHost", "apiKey"),
        (None, None, "http"),
    }


def test_every_route_says_what_it_is_for(document: dict[str, Any]) -> None:
    for route, operation in operations(document):
        assert operation["summary"], route
        assert route[1] == "/" or route[1].startswith("/coze"), route


@pytest.mark.parametrize("model", [CreateSession, SendMessage, ChatCompletionRequest])
def test_every_body_has_an_example_that_is_valid(model: type[Any], document: dict[str, Any]) -> None:
    schema = document["components"]["schemas"][model.__name__]
    assert schema["examples"]
    for example in schema["examples"]:
        model.model_validate(example)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    def check(value: object) -> None:
        if isinstance(value, dict):
            if isinstance(ref := value.get("$ref"), str):
                _, components, kind, name = ref.split("/")
                assert name in document[components][kind], ref
            for item in value.values():
                check(item)
        elif isinstance(value, list):
            for item in value:
                check(item)

    check(document)


def test_every_good_answer_has_a_shape(document: dict[str, Any]) -> None:
    for route, operation in operations(document):
        if route[1].startswith(("/coze/sessions", "/coze/chats")):
            content = operation["responses"]["200"]["content"]
            shape = content.get("application/json", {}).get("schema", {})
            assert "$ref" in shape or "text/event-stream" in content, route
