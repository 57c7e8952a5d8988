"""One request and its response, or one connection of a websocket, as a span sees it: what is asked, what is answered, and
when that is over.

    OPEN ── last chunk, close ──▶ ok          ── app returns ──▶ what came after the response is a span of its own
         ── disconnect ─────────▶ cancelled       (`tracing._afterwards`), if anything did
         ── app raises ─────────▶ error, or what the exception means
         ── app returns early ──▶ error

An answer of 500 or more ends the span at its last chunk too, but is held until the application returns: frameworks raise the
exception behind it after they have answered.

Nothing here raises: an error of ours is counted, and the messages go on. Source: the ASGI specification, "HTTP & WebSocket
ASGI Message Format", 2.5.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from .._contracts import Ending
from ..tracing import ComponentTraceContext, TraceContext
from ..tracing._afterwards import Afterwards, go_on_without_root
from ..tracing._component import OPEN
from ._http import error_type, request_name, set_headers, set_status_code

if TYPE_CHECKING:
    from ..runtime import Tracer
    from ._asgi import ASGIMiddleware

__all__ = ["MARK", "Exchange", "HTTPExchange", "Message", "Receive", "Scope", "Send", "WebSocketExchange", "texts"]

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]

MARK: Final = "asynctrace.tracers"
"""Where a scope says which tracers have a span for it."""
_INCOMPLETE: Final = "response_incomplete"
_GONE: Final = frozenset(("ClientDisconnect", "ClientDisconnected", "RequestAborted", "WebSocketDisconnect"))
"""What frameworks raise into code whose client went away. By name: they share no class."""
_USUAL_CLOSES: Final = frozenset((1000, 1001, 1005))
"""Close codes of a peer that has had what it wanted, or whose page was left (RFC 6455, 7.4.1)."""
_BROKEN: Final = 1011
_NO_CODE: Final = 1005
_CONNECTION_LOST: Final = 1006


def texts(headers: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[str, str]]:
    """Headers as ASGI has them. Every byte means something in Latin-1 (RFC 9110, 5.5, obs-text)."""
    for name, value in headers:
        yield name.decode("latin-1"), value.decode("latin-1")


class Exchange:
    """What both have in common: the run, its name once the route is known, and the end of its root span, which comes once."""

    __slots__ = (
        "_after",
        "_door",
        "_held_ns",
        "_is_gone",
        "_is_named",
        "_is_over",
        "_receive",
        "_root",
        "_scope",
        "_send",
        "around",
        "run",
        "tracer",
    )

    def __init__(
        self, door: ASGIMiddleware, tracer: Tracer, run: TraceContext, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self._door = door
        self._scope = scope
        self._receive = receive
        self._send = send
        self.tracer = tracer
        self.run = run
        self._root = run._root
        self.around: tuple[Tracer, ...] = ()
        """Other tracers, which have a span for the same scope."""
        self._after: Afterwards | None = None
        self._held_ns: int | None = None
        self._is_gone = self._is_named = self._is_over = False

    async def receive(self) -> Message:
        """For the application, in place of the server's."""
        raise NotImplementedError

    async def send(self, message: Message) -> None:
        """For the application, in place of the server's."""
        raise NotImplementedError

    # The end ---------------------------------------------------------------------------------------------------------

    async def _end(self, ending: Ending, *, is_held: bool = False) -> None:
        """The root span ends here. What comes in its run from now on is something else."""
        root = self.run._root
        if self._is_over or root is None:
            self._is_over = True
            return
        self._is_over = True
        self._name()
        self._describe_end(root)
        if is_held:
            self._held_ns = root._wall_ns()
            self._after = go_on_without_root(self.run, root)
            return
        record = root._end(ending)
        self._after = go_on_without_root(self.run, root)
        await self._store(root, record, None)

    async def _finish(self, ending: Ending, *, is_held: bool = False) -> None:
        """`_end()` between two messages, which go on whatever becomes of it."""
        try:
            await self._end(ending, is_held=is_held)
        except Exception as error:  # noqa: BLE001  (tracing never breaks the traced program)
            self._failed(error)

    async def close(self, error: BaseException | None) -> None:
        """The application has returned, or raised `error`."""
        try:
            await self._close(error)
        except Exception as failure:  # noqa: BLE001  (tracing never breaks the traced program)
            self._failed(failure)
        finally:
            self.run._step_out()
            if self._root is not None and self._root._state == OPEN:  # only after a failure of ours
                self._root._store(self._root._end(Ending.ERROR))
            self._unmark()

    def _unmark(self) -> None:
        """The application that has served this scope may be asked again, with the same one."""
        if self.around:
            self._scope[MARK] = self.around
        else:
            self._scope.pop(MARK, None)

    async def _close(self, error: BaseException | None) -> None:
        root = self.run._root
        if root is None:
            return
        if not self._is_over:
            await self._end_unanswered(root, error)
        elif self._after is not None:
            await self._close_after(self._after, error)

    async def _end_unanswered(self, root: ComponentTraceContext, error: BaseException | None) -> None:
        self._is_over = True
        self._name()
        self._describe_end(root)
        if error is None:
            self._fail(_INCOMPLETE)
            root.set_status("error", "the application returned before its response was complete")
            await self._store(root, root._end(Ending.ERROR), None)
            return
        if isinstance(error, Exception) and not isinstance(error, self.tracer._cancelled_types):
            self._fail(error_type(error))
        await self._store(root, root._end_by(error), error)

    async def _close_after(self, after: Afterwards, error: BaseException | None) -> None:
        root = after._parent
        if self._held_ns is not None and root is not None:
            if isinstance(error, Exception):
                root._note_exception(error, Ending.ERROR)
                error = None
            await self._store(root, root._end(Ending.ERROR, self._held_ns), None)
        if self._is_gone and error is not None and self._is_of_a_client_that_left(error):
            error = None
        record = after.close(error, self._door.background_ns)
        await self._store(after, record, error)

    def _is_of_a_client_that_left(self, error: BaseException) -> bool:
        return isinstance(error, (OSError, *self.tracer._cancelled_types)) or type(error).__name__ in _GONE

    async def _store(self, span: ComponentTraceContext, record: bytes | None, error: BaseException | None) -> None:
        """As a component does where it is left: only a program that chose to wait for room waits here."""
        recorder = span._recorder
        if record is not None and not recorder._append_nowait(record):
            if isinstance(error, GeneratorExit):  # the server drops the request: nothing may be awaited
                recorder._sink.append_or_refuse(record)
            else:
                await recorder._append_waiting(record, error)
        if recorder._slab is not None:
            span._forget_open()

    # What is known by then -------------------------------------------------------------------------------------------

    def _name(self) -> None:
        """By the route, as soon as the application has found it."""
        if self._is_named:
            return
        self._is_named = True
        try:
            route = self._door.route_of(self._scope)
        except Exception as error:  # noqa: BLE001  (a function of the program's, or a framework that has changed)
            self._failed(error)
            return
        if route:
            self.run.set_name(request_name(str(self._scope.get("method", "GET")), route))
            self.run.set_attribute("http.route", route)

    def _fail(self, reason: str) -> None:
        self.run.set_attribute("error.type", reason)

    def _describe_end(self, root: ComponentTraceContext) -> None:
        """What is known only at the end."""

    def _failed(self, error: Exception) -> None:
        """Count it, and tell of it once a minute."""
        self.tracer._failed(error)


class HTTPExchange(Exchange):
    """`http.response.start`, chunks, the last of which has no `more_body`, and trailers where they were announced."""

    __slots__ = ("_has_trailers", "_is_last", "_status")

    def __init__(
        self, door: ASGIMiddleware, tracer: Tracer, run: TraceContext, scope: Scope, receive: Receive, send: Send
    ) -> None:
        super().__init__(door, tracer, run, scope, receive, send)
        self._status = 0
        self._has_trailers = self._is_last = False

    async def receive(self) -> Message:
        message = await self._receive()
        # While the last chunk is under way a server may say that the exchange is over.
        if message.get("type") == "http.disconnect" and not self._is_last:
            await self._lose_client()
        return message

    async def send(self, message: Message) -> None:
        try:
            is_last = not self._is_over and self._is_last_message(message)
        except Exception as error:  # noqa: BLE001  (tracing never breaks the traced program)
            self._failed(error)
            is_last = False
        if is_last:
            self._is_last = True
        try:
            await self._send(message)
        except OSError:  # "if send is called after the client disconnected" (ASGI 2.4)
            await self._lose_client()
            raise
        if is_last:
            await self._finish(Ending.OK, is_held=self._status >= 500)

    async def _lose_client(self) -> None:
        self._is_gone = True
        await self._finish(Ending.CANCELLED)

    def _is_last_message(self, message: Message) -> bool:
        kind = message["type"]
        if kind == "http.response.start":
            self._start(message)
            return False
        if kind in ("http.response.body", "http.response.zerocopysend"):
            return not message.get("more_body") and not self._has_trailers
        if kind == "http.response.trailers":
            return not message.get("more_trailers")
        return bool(kind == "http.response.pathsend")

    def _start(self, message: Message) -> None:
        """The application has routed the request."""
        self._name()
        self._status = status = int(message["status"])
        self._has_trailers = bool(message.get("trailers"))
        set_status_code(self.run, status)
        if self._door.response_headers:
            set_headers(self.run, "response", texts(message.get("headers") or ()), self._door.response_headers)


class WebSocketExchange(Exchange):
    """One span for a connection, from its handshake to its close; how many messages went each way."""

    __slots__ = ("_close_code", "_is_accepted", "_message_span", "_received", "_sent", "_status")

    def __init__(
        self, door: ASGIMiddleware, tracer: Tracer, run: TraceContext, scope: Scope, receive: Receive, send: Send
    ) -> None:
        super().__init__(door, tracer, run, scope, receive, send)
        self._received = self._sent = self._status = 0
        self._close_code: int | None = None
        self._is_accepted = False
        self._message_span: ComponentTraceContext | None = None

    async def receive(self) -> Message:
        try:
            self._end_message()
        except Exception as error:  # noqa: BLE001  (tracing never breaks the traced program)
            self._failed(error)
        message = await self._receive()
        try:
            kind = message["type"]
            if kind == "websocket.receive":
                self._received += 1
                if self._door.message_spans and not self._is_over:
                    self._message_span = self.tracer.trace_component("websocket message").start()
            elif kind == "websocket.disconnect":
                await self._disconnect(_close_code_in(message, self._scope))
        except Exception as error:  # noqa: BLE001  (as above)
            self._failed(error)
        return message

    async def send(self, message: Message) -> None:
        try:
            ending = self._ending_with(message)
        except Exception as error:  # noqa: BLE001  (as above)
            self._failed(error)
            ending = None
        try:
            await self._send(message)
        except OSError:
            await self._disconnect(_CONNECTION_LOST)
            raise
        if ending is not None:
            await self._finish(ending, is_held=ending is Ending.ERROR)

    def _ending_with(self, message: Message) -> Ending | None:
        """How the connection ends with this message, if it does."""
        kind = message["type"]
        if kind == "websocket.send":
            self._sent += 1
        elif kind == "websocket.accept":
            self._is_accepted = True
            self._start(101)
        elif kind == "websocket.close":
            if not self._is_accepted:
                self._start(403)
                return Ending.OK
            self._close_code = code = int(message.get("code") or 1000)
            if code == _BROKEN:
                self._fail(str(code))
                return Ending.ERROR
            return Ending.OK
        elif kind == "websocket.http.response.start":
            self._start(int(message["status"]))
        elif kind == "websocket.http.response.body" and not message.get("more_body"):
            return Ending.ERROR if self._status >= 500 else Ending.OK
        return None

    def _start(self, status: int) -> None:
        self._name()
        self._status = status
        set_status_code(self.run, status)

    async def _disconnect(self, code: int) -> None:
        self._is_gone = True
        if not self._is_over:
            self._close_code = code
        await self._finish(Ending.OK if self._is_accepted and code in _USUAL_CLOSES else Ending.CANCELLED)

    async def _close(self, error: BaseException | None) -> None:
        self._end_message(error)
        if error is None and self._is_accepted and not self._is_over:
            await self._end(Ending.OK)  # the server closes what the application leaves open
        await super()._close(error)

    def _end_message(self, error: BaseException | None = None) -> None:
        span, self._message_span = self._message_span, None
        if span is not None:
            span.__exit__(type(error) if error is not None else None, error, None)

    def _describe_end(self, root: ComponentTraceContext) -> None:
        attributes = {"asynctrace.websocket.received": self._received, "asynctrace.websocket.sent": self._sent}
        if self._close_code is not None:
            attributes["asynctrace.websocket.close_code"] = self._close_code
        root.set_attributes(attributes)


def _close_code_in(message: Message, scope: Scope) -> int:
    """With which the client closed. uvicorn says 1005 of a connection that was lost, too, but gives a reason, which may be
    empty, only of a close that came; servers that never give one (before ASGI 2.3) are believed."""
    gives_reasons = scope.get("asgi", {}).get("spec_version", "2.0") >= "2.3"
    if message.get("code") == _NO_CODE and gives_reasons and "reason" not in message:
        return _CONNECTION_LOST
    return int(message.get("code") or _NO_CODE)
