"""A span for each request that an ASGI application serves, and for each connection of a websocket.

    server ── scope, receive, send ──▶ ASGIMiddleware ── the same, watched ──▶ application
                                        │ a run of kind SERVER, current in the application, from here to the last byte

Promises:

1. The request's span lasts from the application's call to its last chunk, or to the client's disconnect; what is made while
   chunks are sent is below it. What the application does afterwards is a span of its own below it, `background`, if anything
   happens there.
2. What the application raises, the server gets: the same object. What the middleware itself meets, neither of them does.
3. One span for one request, however often the middleware stands around the application; tracers that differ make one each.
4. Nobody waits for an exporter, unless `flush=` says how long.

Source: the ASGI specification, 3.0; OpenTelemetry's semantic conventions for HTTP server spans.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeAlias

from .._contracts import Link, SpanKind
from .._errors import ConfigurationError, DeliveryError, MisuseError
from ..runtime import Tracer, default_tracer
from ..tracing import ComponentTraceContext, TraceContext
from ..tracing._prepared import PreparedAttributes
from ._exchange import MARK, Exchange, HTTPExchange, Receive, Scope, Send, WebSocketExchange, texts
from ._failures import checked_tracer, tell
from ._http import Paths, describe_caller, describe_target, header_names, request_name, set_headers
from ._routes import RouteOf, route_finder
from ._trust import Trust, parse_trust, place_request

__all__ = ["ASGIMiddleware"]

ASGIApp: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

_TRACE_HEADERS: Final = frozenset(
    (b"traceparent", b"tracestate", b"baggage", b"b3", b"x-b3-traceid", b"x-b3-spanid", b"x-b3-sampled", b"x-b3-flags")
)
"""Without any of them nobody called. In lower case, as ASGI has the names of headers."""
_LONG_HEADERS: Final = 512
"""Bytes of what a client says of itself, beyond which it is not remembered."""
_EXCHANGES: Final[dict[object, type[Exchange]]] = {"http": HTTPExchange, "websocket": WebSocketExchange}
"""By the type of a scope. Others, such as `lifespan`, pass through."""


class ASGIMiddleware:
    """Trace what `app` serves: `ASGIMiddleware(app)`, or `app.add_middleware(ASGIMiddleware)` with FastAPI and Starlette.

    `tracer` None is the default tracer, looked up for each request. Options:

    - `excluded`: paths without a span, `("/healthz", "/static/*")`.
    - `trust`: what becomes of a trace that the caller names, `"continue"`, `"link"` or `"ignore"`.
    - `capture_headers`, `capture_response_headers`: names of headers to keep; those that announce a secret are masked.
    - `message_spans`: a span for what the application does with each message of a websocket.
    - `route`: `(scope) -> "/items/{id}" | None`, for a framework that is not known here.
    - `background_after`: seconds that work behind a response without a span of its own must take to get one.
    - `flush`: wait up to so many seconds, after the response or what `app` raised, until this request's spans are delivered.
      For platforms that stop a process between two requests; elsewhere it only costs time.

    Bodies are not captured. Raises `ConfigurationError` and `MisuseError`.
    """

    def __init__(
        self,
        app: ASGIApp,
        tracer: Tracer | None = None,
        *,
        excluded: Iterable[str] = (),
        trust: Trust | str = Trust.CONTINUE,
        capture_headers: Iterable[str] = (),
        capture_response_headers: Iterable[str] = (),
        message_spans: bool = False,
        route: RouteOf | None = None,
        background_after: float = 0.1,
        flush: float | None = None,
    ) -> None:
        if not callable(app):
            raise MisuseError(f"ASGIMiddleware(app) takes an ASGI application, not {app!r:.80}")
        if route is not None and not callable(route):
            raise ConfigurationError(f"route= takes a function, route=lambda scope: …, not {route!r:.80}")
        self.app = app
        self.tracer = checked_tracer(tracer, "ASGIMiddleware(app, tracer)")
        self.excluded = Paths(excluded)
        self._has_excluded = bool(self.excluded)
        self.trust = parse_trust(trust)
        self.request_headers = header_names("capture_headers", capture_headers)
        self.response_headers = header_names("capture_response_headers", capture_response_headers)
        self.message_spans = message_spans
        self.route_of = route or route_finder(app)
        self.background_ns = int(_seconds("background_after", background_after) * 1e9)
        self.flush_timeout = None if flush is None else _seconds("flush", flush)
        self._prepared: PreparedAttributes | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The interface of ASGI 3.0."""
        exchange = self._open(scope, receive, send)
        if exchange is None:
            await self.app(scope, receive, send)
            return
        try:
            await self.app(scope, exchange.receive, exchange.send)
        except BaseException as error:
            await exchange.close(error)
            if isinstance(error, Exception):  # else it is to end now
                await self._flush(exchange)
            raise
        await exchange.close(None)
        await self._flush(exchange)

    # Opening ---------------------------------------------------------------------------------------------------------

    def _open(self, scope: Scope, receive: Receive, send: Send) -> Exchange | None:
        """None where this request is not to be traced here, or cannot be."""
        tracer = self.tracer
        try:
            kind = _EXCHANGES.get(scope.get("type"))
            if kind is None or (self._has_excluded and scope.get("path") in self.excluded):
                return None
            tracer = tracer or default_tracer()
            around = scope.get(MARK, ())
            if tracer in around:
                return None
            run = self._run(tracer, scope)
            exchange = kind(self, tracer, run, scope, receive, send)
            run._enter()
            exchange.around = around
            scope[MARK] = (*around, tracer)
            return exchange
        except Exception as error:  # noqa: BLE001  (tracing never breaks the traced program)
            tell(tracer, error)
            return None

    def _run(self, tracer: Tracer, scope: Scope) -> TraceContext:
        headers = scope.get("headers") or ()
        method = scope.get("method", "GET")
        named, target = _read(tracer, scope, headers)
        context: TraceContext | None = None
        links: tuple[Link, ...] = ()
        if named is None:
            context, links = place_request(headers, self.trust, tracer)
        elif not _TRACE_HEADERS.isdisjoint(named):
            context, links = place_request([one for one in headers if one[0] in _TRACE_HEADERS], self.trust, tracer)
        run = tracer.trace(
            request_name(method), context=context, kind=SpanKind.SERVER, attributes=target, links=links or None
        )
        if named is not None and run._root is not None:
            self._describe(run._root, tracer, method, scope, named)
        if self.request_headers:
            set_headers(run, "request", texts(headers), self.request_headers)
        return run

    def _describe(
        self, root: ComponentTraceContext, tracer: Tracer, method: str, scope: Scope, named: dict[bytes, bytes]
    ) -> None:
        """What many requests of one client have in common."""
        host, user_agent = named.get(b"host", b""), named.get(b"user-agent", b"")
        scheme, version, server = scope.get("scheme", "http"), scope.get("http_version", ""), scope.get("server")

        def attributes() -> dict[str, object]:
            return describe_caller(
                method,
                scheme,
                host=host.decode("latin-1"),
                server=server,
                version=version,
                user_agent=user_agent.decode("latin-1"),
            )

        prepared = self._prepared
        if prepared is None or prepared.recorder is not tracer:
            self._prepared = prepared = PreparedAttributes(tracer)
        if len(method) + len(host) + len(user_agent) > _LONG_HEADERS:
            root.set_attributes(attributes())
        else:
            prepared.set(root, (method, scheme, version, host, user_agent, server), attributes)

    async def _flush(self, exchange: Exchange) -> None:
        if self.flush_timeout is None:
            return
        try:
            await exchange.tracer.flush(self.flush_timeout, trace_id=exchange.run.trace_id)
        except DeliveryError:
            return  # in time or not: the response is with the client, and the spans are in the span log
        except Exception as error:  # noqa: BLE001  (as above)
            exchange.tracer._failed(error)


def _read(
    tracer: Tracer, scope: Scope, headers: Iterable[tuple[bytes, bytes]]
) -> tuple[dict[bytes, bytes] | None, dict[str, object]]:
    """The headers by name, and what is asked for; None and nothing for a scope that no server should make."""
    try:
        query = scope.get("query_string", b"").decode("latin-1")
        return dict(headers), describe_target(scope.get("path", ""), query, scope.get("client"))
    except Exception as error:  # noqa: BLE001  (tracing never breaks the traced program)
        tracer._failed(error)
        return None, {}


def _seconds(option: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise ConfigurationError(f"{option}= takes seconds, not {value!r:.80}")
    return float(value)
