"""Routes that are found at once, and called directly where a request brings nothing that FastAPI would have
to check.

For each request FastAPI looks at all parameters of a route and of its dependencies anew, and keeps stacks for
dependencies that have an end, which ours have not: together as long as all else that a read does. What a
route takes is known when it is made. So a request without the headers that the route reads, and with nothing
in its query but texts that the route asks for, goes straight to its dependencies and its function; any other
one goes FastAPI's way.
"""

import inspect
from collections.abc import Awaitable, Callable, Collection, Coroutine
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.routing import Match
from starlette.types import ASGIApp, Receive, Scope, Send

_Field = Any
"""FastAPI's, which has no public name: a parameter, and how to check it."""
_REQUEST: Final = "request"
_UNCHANGING: Final = (str, int, float, bool, type(None))


class _Dependency(NamedTuple):
    """A parameter's ``name``, and what makes its value of the request, or of nothing."""

    name: str
    call: Callable[..., Awaitable[object]]
    takes_request: bool


class _Plan(NamedTuple):
    """``texts``: the route's parameters in the query that are texts, by their names there; ``needed``: those
    that have no default. ``headers``: those that a request must not have, since they are to be checked."""

    call: Callable[..., Awaitable[Response]]
    takes_request: bool
    dependencies: list[_Dependency]
    texts: dict[str, _Field]
    needed: frozenset[str]
    headers: frozenset[bytes]

    def query(self, sent: bytes) -> dict[str, object] | None:
        """The values of the query by the names of the function's parameters; None where it is not for us to
        read."""
        found: dict[str, object] = {}
        for name, text in parse_qsl(sent.decode("latin-1"), keep_blank_values=True) if sent else ():
            field = self.texts.get(name)
            if field is None or field.name in found:
                return None
            found[field.name], errors = field.validate(text, {}, loc=("query", name))
            if errors:
                return None
        return found if self.needed <= found.keys() else None


class DirectApp(FastAPI):
    """Without the layers that FastAPI puts around each request: telemetry and a bound of bodies, which we
    have ourselves, and a stack for files to be closed, which ``DirectRoute`` makes where FastAPI needs one.
    An open stream would keep all three. All routes have to be of that kind."""

    def build_middleware_stack(self) -> ASGIApp:
        self.router.middleware_stack = _ByBeginning(self.router)
        return Starlette.build_middleware_stack(self)


class _ByBeginning:
    """In front of a router: finds a route among those that begin as the path does (``/coze/sessions``), where
    the router would try all of them. What is not found so is the router's affair."""

    def __init__(self, router: APIRouter) -> None:
        self._router = router
        self._others = router.middleware_stack
        begins = [_beginning(getattr(route, "path", "{")) for route in router.routes]
        self._routes = {
            begin: [
                route for route, its in zip(router.routes, begins, strict=True) if its == begin or "{" in its
            ]
            for begin in begins
            if "{" not in begin
        }

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        if scope["type"] == "http" and not scope.get("root_path"):
            for route in self._routes.get(_beginning(scope["path"]), ()):
                match, child = route.matches(scope)
                if match is Match.FULL and isinstance(route, DirectRoute):
                    scope["router"] = self._router
                    scope.update(child)
                    return route.handle(scope, receive, send)
        return self._others(scope, receive, send)


def _beginning(path: str) -> str:
    """Its first two segments."""
    end = path.find("/", path.find("/", 1) + 1)
    return path[:end] if end > 0 else path


class DirectRoute(APIRoute):
    """A route whose function returns a ``Response``, and whose dependencies are ``async`` and depend on
    nothing but the request; whatever is otherwise is FastAPI's affair."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        super().__init__(path, endpoint, **options)
        checked, plan = AsyncExitStackMiddleware(self.app), _plan_of(self.dependant)
        self.app = checked if plan is None else _direct(plan, checked)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Dozens of routes are asked for one request, and all but one say no: at once."""
        if not scope.get("root_path") and self.path_regex.match(scope["path"]) is None:
            return Match.NONE, {}
        return super().matches(scope)

    def handle(self, scope: Scope, receive: Receive, send: Send) -> Coroutine[Any, Any, None]:
        """No coroutines of its own: an open stream would keep them."""
        if self.methods and scope["method"] in self.methods:
            return self.app(scope, receive, send)  # type: ignore[return-value]  # each of ours is a coroutine
        return super().handle(scope, receive, send)


def _direct(plan: _Plan, checked: ASGIApp) -> ASGIApp:
    call, asks, dependencies, headers = plan.call, plan.takes_request, plan.dependencies, plan.headers

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        values = plan.query(scope["query_string"])
        if values is None or any(name in headers for name, _ in scope["headers"]):
            await checked(scope, receive, send)
            return
        request = Request(scope, receive, send)
        values |= scope["path_params"]
        if asks:
            values[_REQUEST] = request
        for name, make, takes_request in dependencies:
            values[name] = await (make(request=request) if takes_request else make())
        response = await call(**values)
        del request, values  # a stream is long, and needs neither
        await response(scope, receive, send)

    return app


def _plan_of(route: Dependant) -> _Plan | None:
    """None where there is more to do than to call functions."""
    call = route.call
    texts = {field.alias: field for field in route.query_params if _is_text(field)}
    needed = [field for field in texts.values() if field.field_info.is_required()]
    if call is None or not _is_plain(route, but=needed):
        return None
    if inspect.signature(call, eval_str=True).return_annotation is not Response:
        return None
    if any(one.field_info.annotation is not str or one.field_info.metadata for one in route.path_params):
        return None
    dependencies = []
    for each in route.dependencies:
        if each.call is None or each.name is None or each.dependencies or not _is_plain(each):
            return None
        dependencies.append(_Dependency(each.name, each.call, each.request_param_name is not None))
    headers = [field.alias for one in (route, *route.dependencies) for field in one.header_params]
    names = {name.lower().encode() for alias in headers for name in (alias, alias.replace("_", "-"))}
    return _Plan(
        call,
        route.request_param_name is not None,
        dependencies,
        texts,
        frozenset(field.name for field in needed),
        frozenset(names),
    )


def _is_text(field: _Field) -> bool:
    return bool(field.field_info.annotation in (str, str | None))


def _is_plain(one: Dependant, *, but: Collection[_Field] = ()) -> bool:
    """Whether it can be called as it is: what it takes of query and headers, ``but`` for these, has a default
    that Python knows, and nothing else is asked for but the request."""
    call: Any = one.call
    if not (inspect.iscoroutinefunction(call) or inspect.iscoroutinefunction(type(call).__call__)):
        return False
    special = (
        *(one.websocket_param_name, one.http_connection_param_name, one.response_param_name),
        *(one.background_tasks_param_name, one.security_scopes_param_name, one.concurrency),
    )
    if any(special) or one.body_params or one.cookie_params or one.request_param_name not in (None, _REQUEST):
        return False
    parameters = inspect.signature(call).parameters
    taken = [field for field in (*one.query_params, *one.header_params) if field not in but]
    defaults = [parameters[field.name].default for field in taken]
    return all(type(default) in _UNCHANGING for default in defaults)
