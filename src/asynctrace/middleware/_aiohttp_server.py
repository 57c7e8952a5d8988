"""A run for each request that an aiohttp application serves, and the tracer's life with the application.

    app = web.Application(middlewares=[aiohttp_middleware()])
    app.cleanup_ctx.append(aiohttp_lifespan())

    middleware called ── handler ── returns ── outer middlewares ── response prepared, written ── request's task done
          run opens      ······ current: components are its children, also those of a body ······       run ends

Promises:

1. One server span a request, from the handler's start to the last chunk of the response, whoever writes it: a handler
   that streams, or aiohttp after the handler has returned. What is written then is traced inside the run, too.
2. It says what was sent: the status after outer middlewares, and that of aiohttp's own answer to an exception.
3. A client that goes away ends it `cancelled`: whether the handler is cancelled for it (`handler_cancellation`), meets the
   closed connection itself, or returns a response that nobody reads any more.
4. An answer that is raised is an answer: `HTTPNotFound` is no error, `HTTPBadGateway` is one, as if it were returned.
5. The application notices nothing: exceptions pass unchanged, an error in here is counted and not raised.
6. One span for one request, also where an application inside has the middleware too; tracers that differ make one each.

aiohttp serves each request in a task of its own, and writes the response in it after the handler: its end is the run's. Where
the handler is called in another task (`asyncio.wait_for` in an outer middleware makes one on Python 3.11), the run ends
with the handler. The end is a callback: it does not wait for room in the span log, whatever `when_full` says.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

from aiohttp import WSCloseCode, web

from .._contracts import Ending, Link, SpanKind
from ..runtime import Tracer, default_tracer
from ..tracing._endings import classify
from ..tracing._prepared import PreparedAttributes
from ._failures import checked_tracer, tell
from ._http import (
    Paths,
    describe_caller,
    describe_target,
    error_type,
    header_names,
    request_name,
    set_headers,
    set_status_code,
)
from ._lifespan import Life
from ._trust import Trust, parse_trust, place_request

if TYPE_CHECKING:
    from aiohttp.typedefs import Handler, Middleware
    from multidict import CIMultiDictProxy

    from ..tracing import ComponentTraceContext, TraceContext

__all__ = ["aiohttp_lifespan", "aiohttp_middleware"]

_SERVES_ONE_REQUEST: Final = getattr(getattr(web.RequestHandler, "_handle_request", None), "__code__", None)
"""The code of the tasks that aiohttp makes for requests."""

_TRACE_HEADERS: Final = (
    "traceparent",
    "tracestate",
    "baggage",
    "b3",
    "x-b3-traceid",
    "x-b3-spanid",
    "x-b3-sampled",
    "x-b3-flags",
)
"""Without any of them nobody called."""

_LONG_HEADERS: Final = 512
"""Characters of what a client says of itself, beyond which it is not remembered."""

_MARK: Final[Any] = web.RequestKey("tracers", tuple) if hasattr(web, "RequestKey") else "asynctrace.tracers"
"""Where a request says which tracers have a span for it."""


def aiohttp_middleware(
    tracer: Tracer | None = None,
    *,
    trust: Trust | str = Trust.CONTINUE,
    excluded: Iterable[str] = (),
    capture_headers: Iterable[str] = (),
    capture_response_headers: Iterable[str] = (),
) -> Middleware:
    """A middleware for `web.Application(middlewares=[aiohttp_middleware()])`; put it first, so that it sees everything.

    None is the default tracer, looked up with each request. Options:

    - `trust`: what becomes of a trace that the caller names, `"continue"`, `"link"` or `"ignore"`.
    - `excluded`: paths without a span, `("/healthz", "/static/*")`.
    - `capture_headers`, `capture_response_headers`: names of headers to keep; those that announce a secret are masked.

    Raises `MisuseError` for what is no tracer, and `ConfigurationError`. Source: OpenTelemetry semantic conventions, HTTP
    server spans.
    """
    checked_tracer(tracer, "web.Application(middlewares=[aiohttp_middleware()])")
    door = _Door(tracer, trust, excluded, capture_headers, capture_response_headers)

    @web.middleware
    async def trace_request(request: web.Request, handler: Handler) -> web.StreamResponse:
        served = door.open(request)
        if served is None:
            return await handler(request)
        try:
            response = await handler(request)
        except BaseException as error:
            served.handler_raised(error)
            raise
        served.handler_returned(response)
        return response

    return trace_request


def aiohttp_lifespan(tracer: Tracer | None = None) -> Callable[[web.Application], AsyncIterator[None]]:
    """Start `tracer` with the application, and shut it down with it: `app.cleanup_ctx.append(aiohttp_lifespan())`.

    Append it before others: the first is cleaned up last, after every request and after what the others do at their end.
    The rest is as with `lifespan()`.
    """
    checked_tracer(tracer, "app.cleanup_ctx.append(aiohttp_lifespan())")

    async def with_app(app: web.Application) -> AsyncIterator[None]:
        async with Life(tracer):
            yield

    return with_app


class _Door:
    """What all requests of one middleware share."""

    def __init__(
        self,
        tracer: Tracer | None,
        trust: Trust | str,
        excluded: Iterable[str],
        request_headers: Iterable[str],
        response_headers: Iterable[str],
    ) -> None:
        self._tracer = tracer
        self._trust = parse_trust(trust)
        self._excluded = Paths(excluded)
        self._request_headers = header_names("capture_headers", request_headers)
        self._prepared: PreparedAttributes | None = None
        self.response_headers = header_names("capture_response_headers", response_headers)

    def open(self, request: web.Request) -> _Served | None:
        """`request` with its run, which is current from now on; None where it is not traced."""
        if self._excluded and request.path in self._excluded:
            return None
        tracer = self._tracer
        try:
            tracer = tracer or default_tracer()
            around = request.get(_MARK, ())
            if tracer in around:
                return None
            request[_MARK] = (*around, tracer)
            return _Served(self, tracer, request, self._run_of(tracer, request)._enter())
        except Exception as error:  # noqa: BLE001  (tracing never breaks the traced program)
            tell(tracer, error)
            return None

    def _run_of(self, tracer: Tracer, request: web.Request) -> TraceContext:
        headers, route = request.headers, _route_of(request)
        context, links = self._caller_of(tracer, headers)
        run = tracer.trace(
            request_name(request.method, route),
            kind=SpanKind.SERVER,
            attributes=_target_of(request),
            context=context,
            links=links or None,
        )
        if run._root is not None:
            self._describe(run._root, tracer, request, route)
        if self._request_headers:
            set_headers(run, "request", headers.items(), self._request_headers)
        return run

    def _caller_of(
        self, tracer: Tracer, headers: CIMultiDictProxy[str]
    ) -> tuple[TraceContext | None, tuple[Link, ...]]:
        named = [(name, value) for name in _TRACE_HEADERS if name in headers for value in headers.getall(name)]
        return place_request(named, self._trust, tracer) if named else (None, ())

    def _describe(self, root: ComponentTraceContext, tracer: Tracer, request: web.Request, route: str) -> None:
        """What many requests of one client have in common."""
        headers, version = request.headers, request.version
        host, user_agent = headers.get("Host", ""), headers.get("User-Agent", "")
        server = None if host else _address(request.transport, "sockname")

        def attributes() -> dict[str, object]:
            return {
                **describe_caller(
                    request.method,
                    request.scheme,
                    host=host,
                    server=server,
                    version=f"{version.major}.{version.minor}",
                    user_agent=user_agent,
                ),
                **({"http.route": route} if route else {}),
            }

        prepared = self._prepared
        if prepared is None or prepared.recorder is not tracer:
            self._prepared = prepared = PreparedAttributes(tracer)
        if len(request.method) + len(host) + len(user_agent) > _LONG_HEADERS:
            root.set_attributes(attributes())
        else:
            key = request.method, request.scheme, version, host, user_agent, server, route
            prepared.set(root, key, attributes)


class _Served:
    """One request, from the handler's start to the last chunk of the response."""

    __slots__ = ("_door", "_ends_with_task", "_error", "_is_gone", "_request", "_response", "_run", "_tracer")

    def __init__(self, door: _Door, tracer: Tracer, request: web.Request, run: TraceContext) -> None:
        self._door, self._tracer, self._request, self._run = door, tracer, request, run
        self._response: object = None
        self._error: BaseException | None = None
        self._is_gone = False
        task = asyncio.current_task()
        self._ends_with_task = task is not None and _serves_one_request(task)
        if task is not None and self._ends_with_task:
            task.add_done_callback(self._task_done)

    def handler_returned(self, response: object) -> None:
        self._response = response
        if not self._ends_with_task:
            self._end()

    def handler_raised(self, error: BaseException) -> None:
        if isinstance(error, web.HTTPException):
            self._response = error
        else:
            self._error = error
        transport = self._request.transport
        self._is_gone = transport is None or transport.is_closing()
        if not self._ends_with_task:
            self._end()

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        """The response is written, or cannot be. What the task says is what became of it."""
        try:
            if task.cancelled():
                self._error = self._error or asyncio.CancelledError()
            elif (error := task.exception()) is not None:
                self._error = self._error or error
                self._response = None
            else:
                self._response, is_reset = task.result()
                self._is_gone = self._is_gone or is_reset
        except Exception as error:  # noqa: BLE001  (tracing never breaks the traced program)
            tell(self._tracer, error)
        self._end()

    def _end(self) -> None:
        error, self._error = self._error, None  # its traceback leads back to here
        try:
            self._end_run(error)
        except Exception as failure:  # noqa: BLE001  (as above)
            tell(self._tracer, failure)

    def _end_run(self, error: BaseException | None) -> None:
        is_server_error = False
        try:
            is_server_error = self._describe_answer(was_sent=not (self._is_gone and error is not None))
        finally:
            if error is not None and not (self._is_gone and isinstance(error, ConnectionError)):
                self._end_by(error)
            elif self._is_gone or getattr(self._response, "close_code", None) == WSCloseCode.ABNORMAL_CLOSURE:
                self._run._exit_as(Ending.CANCELLED)
            else:
                self._run._exit_as(Ending.ERROR if is_server_error else Ending.OK)

    def _describe_answer(self, was_sent: bool) -> bool:
        """Status and headers; whether the answer says that the server failed."""
        response: Any = self._response
        if response is None or not was_sent:
            return False
        if self._door.response_headers:
            set_headers(self._run, "response", response.headers.items(), self._door.response_headers)
        return set_status_code(self._run, response.status)

    def _end_by(self, error: BaseException) -> None:
        if classify(error, self._tracer._cancelled_types) in (Ending.ERROR, Ending.TIMEOUT):
            self._run.set_attribute("error.type", error_type(error))
        self._run.__exit__(type(error), error, error.__traceback__)


def _serves_one_request(task: asyncio.Task[Any]) -> bool:
    return _SERVES_ONE_REQUEST is not None and getattr(task.get_coro(), "cr_code", None) is _SERVES_ONE_REQUEST


def _route_of(request: web.Request) -> str:
    """`/items/{id}`; nothing where no route matches."""
    resource = request.match_info.route.resource
    return resource.canonical if resource is not None else ""


def _target_of(request: web.Request) -> dict[str, object]:
    return describe_target(request.path, request.query_string, _address(request.transport, "peername"))


def _address(transport: asyncio.Transport | None, which: str) -> tuple[str, int | None] | None:
    """Of a socket's names, "peername" and "sockname": a tuple where it has a port, a path where it is in the file system."""
    name = transport.get_extra_info(which) if transport is not None else None
    return (name[0], name[1]) if isinstance(name, tuple) and len(name) > 1 else None
