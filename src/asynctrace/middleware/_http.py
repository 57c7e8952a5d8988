"""What doors for HTTP servers say about a request, in the words of OpenTelemetry's semantic conventions; they say it alike.

    method   `GET`, or `_OTHER` with what the client wrote      name     `GET /items/{id}`, `GET` without a route
    query    with secrets replaced by `REDACTED`                status   from 500 on an error; 4xx the client's own affair

Nothing here raises for what a client sent. Source: https://opentelemetry.io/docs/specs/semconv/http/http-spans/ (stable),
"HTTP server" and "Status"; for the attributes its registries `http`, `url`, `server`, `client`, `network`, `user_agent`.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Final, TypeAlias
from urllib.parse import unquote_plus

from .._errors import ConfigurationError
from ..tracing import ComponentTraceContext, TraceContext
from ..tracing._capture_exception import exception_type
from ..tracing._masking_keys import names_a_secret

__all__ = [
    "KNOWN_METHODS",
    "Paths",
    "describe_caller",
    "describe_request",
    "describe_target",
    "error_type",
    "header_names",
    "redacted_query",
    "request_name",
    "set_headers",
    "set_status_code",
    "split_host",
]

Address: TypeAlias = tuple[str, int | None]

KNOWN_METHODS: Final = frozenset(
    ("CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE")
)
"""Others are `_OTHER`: what a client makes up must not become a name. In upper case only, as RFC 9110 writes them."""

REDACTED: Final = "REDACTED"
_LONGEST_QUERY: Final = 8192
"""Characters of a query that are looked at, and kept."""
_SIGNATURES: Final = frozenset(("AWSAccessKeyId", "Signature", "sig", "X-Goog-Signature", "X-Amz-Signature"))
"""Parameters that the conventions name, and what became of one of them; the rest is decided as for all names of values."""
_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_STATUS_TEXTS: Final = {code: str(code) for code in range(500, 600)}


class Paths:
    """Paths that are left out: `("/healthz", "/static/*")`, the whole path or, with a star at its end, how it begins."""

    __slots__ = ("_exact", "_prefixes")

    def __init__(self, patterns: Iterable[str]) -> None:
        """Raises `ConfigurationError` for what is no collection of paths."""
        patterns = [patterns] if isinstance(patterns, str) else list(patterns)
        for pattern in patterns:
            if not isinstance(pattern, str) or not pattern.startswith(("/", "*")):
                raise ConfigurationError(f'excluded= takes paths, ("/healthz", "/static/*"), not {pattern!r:.80}')
        self._exact = frozenset(pattern for pattern in patterns if not pattern.endswith("*"))
        self._prefixes = tuple(pattern[:-1] for pattern in patterns if pattern.endswith("*"))

    def __bool__(self) -> bool:
        return bool(self._exact or self._prefixes)

    def __contains__(self, path: object) -> bool:
        return path in self._exact or (isinstance(path, str) and path.startswith(self._prefixes))


def describe_request(
    method: str,
    path: str,
    query: str,
    scheme: str,
    *,
    host: str = "",
    server: Address | None = None,
    client: Address | None = None,
    version: str = "",
    user_agent: str = "",
) -> dict[str, object]:
    """The attributes that a server knows when a request begins. `host` is the header, `server` the socket's own address,
    which counts where there is no header; `version` that of HTTP; empty texts stand for what was not said."""
    common = describe_caller(method, scheme, host=host, server=server, version=version, user_agent=user_agent)
    return common | describe_target(path, query, client)


def describe_caller(
    method: str, scheme: str, *, host: str, server: Address | None, version: str, user_agent: str
) -> dict[str, object]:
    """Of `describe_request()`, what many requests have in common."""
    is_known = method in KNOWN_METHODS
    attributes: dict[str, object] = {"http.request.method": method if is_known else "_OTHER", "url.scheme": scheme}
    if not is_known:
        attributes["http.request.method_original"] = method
    address, port = split_host(host, scheme) if host else server or ("", None)
    if address:
        attributes["server.address"] = address
        if port is not None:
            attributes["server.port"] = port
    if version:
        attributes["network.protocol.version"] = version
    if user_agent:
        attributes["user_agent.original"] = user_agent
    return attributes


def describe_target(path: str, query: str, client: Address | None) -> dict[str, object]:
    """Of `describe_request()`, what differs from one to the next."""
    attributes: dict[str, object] = {"url.path": path}
    if query:
        attributes["url.query"] = redacted_query(query)
    if client is not None and client[0]:
        attributes["client.address"] = client[0]
        if client[1]:
            attributes["client.port"] = client[1]
    return attributes


def request_name(method: str, route: str | None = None) -> str:
    """The name of the request's span. It takes as few values as there are routes, whatever clients send."""
    word = method if method in KNOWN_METHODS else "HTTP"
    return f"{word} {route}" if route else word


def set_status_code(span: TraceContext | ComponentTraceContext, status: int) -> bool:
    """Say what was answered; whether that is an error of the server. A 4xx leaves the status of the span unset."""
    span.set_attribute("http.response.status_code", status)
    if status >= 500:
        span.set_attribute("error.type", _STATUS_TEXTS.get(status) or str(status))
        return True
    if status >= 400:
        span.set_status("unset")
    return False


def error_type(error: BaseException) -> str:
    """`error.type` of a request that an exception ended, which is also the `exception.type` of its event."""
    return exception_type(error)


def redacted_query(query: str) -> str:
    """`query` with the values replaced whose names announce a secret: `page=2&token=REDACTED`."""
    query = query[:_LONGEST_QUERY]
    if "=" not in query:
        return query
    return "&".join([_redacted_pair(pair) for pair in query.split("&")])


def _redacted_pair(pair: str) -> str:
    name, equals, value = pair.partition("=")
    return f"{name}={REDACTED}" if equals and value and _is_secret(name) else pair


@lru_cache(maxsize=1024)
def _is_secret(name: str) -> bool:
    name = unquote_plus(name)
    return name in _SIGNATURES or names_a_secret(name)


@lru_cache(maxsize=256)
def split_host(host: str, scheme: str) -> tuple[str, int | None]:
    """Address and port of a `Host` header (RFC 9110, 7.2): the scheme's own port where it names none. A port that is
    no number is none; the address of IPv6 loses its brackets."""
    address, colon, port = host.rpartition(":")
    if not colon or port.endswith("]"):
        address, port = host, ""
    number = int(port) if port.isascii() and port.isdigit() and len(port) <= 5 else _DEFAULT_PORTS.get(scheme)
    return address.strip("[]"), number


def header_names(option: str, names: Iterable[str]) -> frozenset[str]:
    """Names of headers to be captured, in lower case. Raises `ConfigurationError`."""
    names = [names] if isinstance(names, str) else list(names)
    if not all(isinstance(name, str) and name for name in names):
        raise ConfigurationError(
            f'{option}= takes names of headers, ("content-type", "x-request-id"), not {names!r:.80}'
        )
    return frozenset(name.lower() for name in names)


def set_headers(
    span: TraceContext | ComponentTraceContext, where: str, headers: Iterable[tuple[str, str]], wanted: frozenset[str]
) -> None:
    """The headers that are `wanted`, each a list of its values: `http.request.header.<name>`, where `where` is
    `request` or `response`. Names that announce a secret are masked like any attribute's."""
    found: dict[str, list[str]] = {}
    for name, value in headers:
        if (lower := name.lower()) in wanted:
            found.setdefault(lower, []).append(value)
    for name, values in found.items():
        span.set_attribute(f"http.{where}.header.{name}", values)
