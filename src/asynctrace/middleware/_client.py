"""What doors for HTTP clients do alike: one client span for each request, whose headers carry the trace on.

    request begins ── span opens below what is current, headers are set ── status ── body ends, or is closed ── span ends

Promises:

1. The span's parent is what was current where the request was made. The span itself is never current: what the
   client library does inside is not traced.
2. Inside `suppress()`, and so in every exporter, there is no span and no header is set. In a trace that is not recorded
   there is no span, and the headers say that it is not.
3. From 400 on a status is an error, and so is a request that fails; one that was cancelled ends `cancelled`.
4. URLs are recorded without credentials, and with the values of parameters replaced whose names announce a secret.

Source: https://opentelemetry.io/docs/specs/semconv/http/http-spans/ (stable), "HTTP client".
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from typing import Any, Final, NamedTuple

from .._contracts import Ending, SpanKind
from ..runtime import Tracer, default_tracer
from ..tracing import ComponentTraceContext
from ..tracing._endings import classify
from ..tracing._prepared import PreparedAttributes
from ..tracing._scope import Suppressed, component_var, trace_var
from ._failures import checked_tracer, tell
from ._http import KNOWN_METHODS, REDACTED, error_type, redacted_query, request_name, split_host

__all__ = ["Call", "Caller", "Request", "full_url"]

_LONG_AUTHORITY: Final = 512
"""Characters of a far side's name, beyond which it is not remembered."""


class Caller:
    """The settings of one door, which opens calls."""

    __slots__ = ("_describe", "_may_start_traces", "_prepared", "_propagates", "_tracer")

    def __init__(
        self,
        tracer: Tracer | None,
        usage: str,
        describe: Callable[[Any], Request],
        *,
        start_traces: bool,
        propagate: bool,
    ) -> None:
        """`usage` is the right call, for who gives the wrong tracer; `describe` makes a `Request` of the client's own."""
        self._tracer = checked_tracer(tracer, usage)
        self._describe = describe
        self._may_start_traces = start_traces
        self._propagates = propagate
        self._prepared: PreparedAttributes | None = None

    def open(self, own_request: object, headers: MutableMapping[str, str]) -> Call | None:
        """The span of a request, whose place is written into `headers`; None where there is none."""
        tracer = self._tracer
        try:
            tracer = tracer or default_tracer()
            around = tracer._nearest(component_var.get(), trace_var.get())
            if isinstance(around, Suppressed) or (around is None and not self._may_start_traces):
                return None
            request = self._describe(own_request)
            span = tracer._open_apart(
                request_name(request.method),
                parent=around,
                kind=SpanKind.CLIENT,
                attributes={"url.full": full_url(request)},
            )
            call = Call(tracer, span)
            if call.is_open:
                self._describe_far_side(tracer, span, request)
            if self._propagates:
                call.carry_on(headers)
            return call if call.is_open else None
        except Exception as error:  # noqa: BLE001  (tracing never breaks the traced program)
            tell(tracer, error)
            return None

    def _describe_far_side(self, tracer: Tracer, span: ComponentTraceContext, request: Request) -> None:
        """What many requests have in common."""
        prepared = self._prepared
        if prepared is None or prepared.recorder is not tracer:
            self._prepared = prepared = PreparedAttributes(tracer)
        if len(request.method) + len(request.authority) > _LONG_AUTHORITY:
            span.set_attributes(_attributes_of(request))
        else:
            key = request.method, request.scheme, request.authority
            prepared.set(span, key, lambda: _attributes_of(request))


class Request(NamedTuple):
    """What a client is about to ask. `authority` is host and port, as the URL has them, without credentials."""

    method: str
    scheme: str
    authority: str
    path: str
    query: str
    has_credentials: bool


class Call:
    """The span of one request, from its opening to `finish()` or `fail()`. No method raises; late ones do nothing."""

    __slots__ = ("_ending", "_resends", "_span", "_tracer")

    def __init__(self, tracer: Tracer, span: ComponentTraceContext) -> None:
        self._tracer, self._span = tracer, span
        self._ending = Ending.OK
        self._resends = 0

    @property
    def is_open(self) -> bool:
        return self._span.is_recording

    def carry_on(self, headers: MutableMapping[str, str]) -> None:
        """Write into `headers` that the trace goes on from here."""
        self._act(_inject, self._tracer, self._span, headers)

    def redirect(self, status: int, url: str) -> None:
        """The client goes on to `url` of its own accord: a log of the same span."""
        self._resends += 1
        self._act(self._span._add_event, "redirected", {"http.response.status_code": status, "url.full": url})

    def answer(self, status: int, version: str = "") -> None:
        """Status and headers have come; the body may be on its way. `version` is that of HTTP, `1.1`."""
        attributes: dict[str, object] = {"http.response.status_code": status}
        if version:
            attributes["network.protocol.version"] = version
        if self._resends:
            attributes["http.request.resend_count"] = self._resends
        if status >= 400:
            attributes["error.type"] = str(status)
            self._ending = Ending.ERROR
        self._act(self._span.set_attributes, attributes)

    def finish(self) -> None:
        """The body is read, or nobody wants more of it."""
        if self.is_open:
            self._act(self._span._end_apart, self._ending)

    def fail(self, error: BaseException, ending: Ending | None = None) -> None:
        """There is no answer, or no more of it. `ending` is for errors that do not say themselves what they are."""
        if self.is_open:
            self._act(self._end_by, error, ending)

    def _end_by(self, error: BaseException, ending: Ending | None) -> None:
        ending = ending or classify(error, self._tracer._cancelled_types)
        if ending in (Ending.ERROR, Ending.TIMEOUT):
            self._span.set_attribute("error.type", error_type(error))
            self._span._note_exception(error, ending)
        self._span._end_apart(ending)

    def _act(self, act: Callable[..., object], *arguments: object) -> None:
        try:
            act(*arguments)
        except Exception as error:  # noqa: BLE001  (tracing never breaks the traced program)
            tell(self._tracer, error)


def full_url(request: Request) -> str:
    """`https://REDACTED:REDACTED@shop.example/items?token=REDACTED`, for `url.full`."""
    user = f"{REDACTED}:{REDACTED}@" if request.has_credentials else ""
    tail = f"?{redacted_query(request.query)}" if request.query else ""
    return f"{request.scheme}://{user}{request.authority}{request.path}{tail}"


def _attributes_of(request: Request) -> dict[str, object]:
    """But its URL."""
    attributes: dict[str, object] = {"http.request.method": request.method}
    if request.method not in KNOWN_METHODS:
        attributes = {"http.request.method": "_OTHER", "http.request.method_original": request.method}
    address, port = split_host(request.authority, request.scheme)
    if address:
        attributes["server.address"] = address
        if port is not None:
            attributes["server.port"] = port
    return attributes


def _inject(tracer: Tracer, span: ComponentTraceContext, headers: MutableMapping[str, str]) -> None:
    """Write into `headers` that the trace goes on from `span`, which is current for that long."""
    before = component_var.get()
    component_var.set(span)
    try:
        tracer.inject(headers)
    finally:
        component_var.set(before)
