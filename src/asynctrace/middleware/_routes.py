"""Which route of an application serves a request: its template, `/items/{id}`.

    Starlette, FastAPI     `scope["route"]`, with what it is mounted below     Quart      asked again, by its map of rules
    Litestar               `scope["path_template"]`                            Django     asked again, by its resolver

Starlette and Litestar leave it in the scope while they route. Quart and Django keep it in objects of their own; both can
be asked a second time, which changes nothing and costs some microseconds.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, TypeAlias

__all__ = ["RouteOf", "route_finder", "route_in_scope"]

Scope: TypeAlias = MutableMapping[str, Any]
RouteOf: TypeAlias = Callable[[Scope], str | None]
"""`(scope) -> "/items/{id}"`, called once the application has routed the request; None where no route serves it."""


def route_finder(app: object) -> RouteOf:
    """How the route of a request is found with this application."""
    owner = getattr(app, "__self__", app)  # `app.asgi_app = ASGIMiddleware(app.asgi_app)` is how Quart is wrapped
    if _is_a(owner, "quart.app", "Quart"):
        return _quart(owner)
    if _is_a(app, "django.core.handlers.asgi", "ASGIHandler"):
        return _django
    return route_in_scope


def _is_a(app: object, module: str, name: str) -> bool:
    """Whether it is an instance of that class, which need not be installed."""
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and isinstance(app, kind)


def route_in_scope(scope: Scope) -> str | None:
    """What Starlette, FastAPI or Litestar has left there."""
    template = scope.get("path_template")
    if template is None:
        route = scope.get("route")
        if route is None:
            return None
        template = getattr(route, "path_format", None) or getattr(route, "path", None)
        if not isinstance(template, str):
            return None
        return _mounted_at(scope, template) if scope.get("app_root_path", scope) is not scope else template
    return template if isinstance(template, str) else None


def _mounted_at(scope: Scope, template: str) -> str:
    """With the paths of the mounts around it, in which a parameter is shown by its name, not by what it is this time."""
    around = str(scope.get("root_path", "")).removeprefix(str(scope["app_root_path"]))
    parameters = scope.get("path_params")
    if around and isinstance(parameters, Mapping):
        names = {str(value): name for name, value in parameters.items() if f"{{{name}}}" not in template}
        around = "/".join([f"{{{names[part]}}}" if part in names else part for part in around.split("/")])
    return around + template


def _quart(app: Any) -> RouteOf:
    http_exception = sys.modules["werkzeug.exceptions"].HTTPException

    def route_of(scope: Scope) -> str | None:
        path = str(scope["path"])
        root = str(scope.get("root_path", ""))
        is_websocket = scope["type"] == "websocket"
        adapter = app.url_map.bind(_host_in(scope), "/", url_scheme=scope.get("scheme", "http"))
        try:
            rule, _ = adapter.match(
                path.removeprefix(root) or "/",
                method=scope.get("method", "GET"),
                return_rule=True,
                websocket=is_websocket,
            )
        except http_exception:
            return None
        return root + str(rule.rule)

    return route_of


def _host_in(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"host":
            return str(value.decode("latin-1")).lower()
    return ""


def _django(scope: Scope) -> str | None:
    urls = sys.modules["django.urls"]  # it came with the application
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    try:
        return f"{root}/{urls.resolve(path.removeprefix(root) or '/').route.removeprefix('/')}"
    except urls.Resolver404:
        return None
