"""One current span, whichever of the two APIs asks: OpenTelemetry's context and asynctrace's two variables, kept in step.

    attach(context)      what the context holds becomes current here: the component, the run, or nothing
    get_current()        the context as it was attached, if what was current then still is; else with the span of what is
    detach(token)        restores by value both what was attached and what was current before

It stands in front of the runtime context that was in place and hands everything on, so whoever uses another provider finds
what it attached. What a context can hold:

    a span of ours                         its component, or its run, is current
    a remote caller's, or of another       a run that stands for it is current, for each tracer with a provider: what is
    provider                               opened below goes on in that trace
    no span                                nothing is current
    a mark of `suppress()`                 nothing is traced

Promises:

1. `detach()` raises nothing and changes nothing where its attach has no effect: in another task, twice, out of order.
2. What asynctrace enters needs no call here; it is seen by the next `get_current()`.
3. The same context and span are shown for as long as the same is current.

Source: `opentelemetry.context`, whose global `_RUNTIME_CONTEXT` is replaced once, by the first provider.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final, NamedTuple, Protocol, TypeAlias, runtime_checkable

import opentelemetry.context
from opentelemetry import trace as otel
from opentelemetry.context import Context

from ..tracing import ComponentTraceContext, TraceContext
from ..tracing._component import ENDED
from ..tracing._scope import SUPPRESSED, Suppressed, component_var, trace_var
from ._span import Span, face_of

__all__ = ["RuntimeContext", "SPAN_KEY", "SUPPRESSED_KEY", "SharedContext", "enter", "leave", "share_context"]

Component: TypeAlias = ComponentTraceContext | Suppressed | None
Place: TypeAlias = tuple[Component, TraceContext | None]

(SPAN_KEY,) = otel.set_span_in_context(otel.INVALID_SPAN, Context())
"""Under which OpenTelemetry keeps the current span."""
SUPPRESSED_KEY: Final = opentelemetry.context.create_key("asynctrace-suppressed")


@runtime_checkable
class RuntimeContext(Protocol):
    """What OpenTelemetry's functions go through."""

    def attach(self, context: Context) -> Any: ...

    def detach(self, token: Any) -> None: ...

    def get_current(self) -> Context: ...


class _Attachment:
    """One attach: the token that `detach()` takes."""

    __slots__ = ("before", "component", "context", "outer", "process", "restore_component", "restore_run", "run")

    def __init__(
        self, context: Context, place: Place, before: Context, outer: _Attachment | None, around: Place
    ) -> None:
        self.context = context
        self.component, self.run = place
        self.before = before
        self.outer = outer
        self.restore_component, self.restore_run = around
        self.process = os.getpid()


class _Shown(NamedTuple):
    """What `get_current()` answered, and for what."""

    context: Context
    component: Component
    run: TraceContext | None
    answer: Context


_attachment_var: ContextVar[_Attachment | None] = ContextVar("asynctrace.opentelemetry.attachment", default=None)
_face_var: ContextVar[Span | None] = ContextVar("asynctrace.opentelemetry.face", default=None)
"""The innermost span that was entered: `get_current_span()` gives the same object back."""
_shown_var: ContextVar[_Shown | None] = ContextVar("asynctrace.opentelemetry.shown", default=None)

PlaceElsewhere: TypeAlias = Callable[[otel.SpanContext, Place], Place]
"""What becomes current below a span that is not ours, given what is current around it."""


class SharedContext:
    """OpenTelemetry's runtime context, in front of `inner`."""

    def __init__(self, inner: RuntimeContext, place_elsewhere: PlaceElsewhere) -> None:
        self._inner = inner
        self._inner_current = inner.get_current
        self._inner_attach = inner.attach
        self._place_elsewhere = place_elsewhere

    def get_current(self) -> Context:
        context = self._inner_current()
        at = _attachment_var.get()
        component = component_var.get()
        if at is not None and at.context is context:
            if at.component is component and (component is not None or at.run is trace_var.get()):
                return context
        elif component is None and trace_var.get() is None:
            return context
        return self._shown(context, component, trace_var.get())

    def attach(self, context: Context) -> Any:
        around = (component_var.get(), trace_var.get())
        span = context.get(SPAN_KEY)
        if around[0] is SUPPRESSED or SUPPRESSED_KEY in context:
            place: Place = (SUPPRESSED, around[1])
        elif span is None:
            place = (None, None)
        elif isinstance(span, Span):
            place = (None, span._run) if span._run is not None else (span._component, around[1])
        else:
            place = self._place_of_another(span, around)
        return self._put(context, place, around)

    def detach(self, token: Any) -> None:
        if not isinstance(token, _Attachment):
            self._inner.detach(token)  # attached before we came
            return
        dropped = _attachments_down_to(token)
        if not dropped:
            return  # it was attached elsewhere
        self._inner_attach(token.before)
        _attachment_var.set(token.outer)
        _restore(dropped)

    def _put(self, context: Context, place: Place, around: Place) -> _Attachment:
        component, run = place
        if isinstance(component, ComponentTraceContext) and component._restore is None:
            _place_below(around[0], component)
        at = _Attachment(context, place, self._inner_current(), _attachment_var.get(), around)
        self._inner_attach(context)
        _attachment_var.set(at)
        component_var.set(component)
        if run is not around[1]:
            trace_var.set(run)
        return at

    def _place_of_another(self, span: object, around: Place) -> Place:
        try:
            span_context = span.get_span_context()  # type: ignore[attr-defined]
        except Exception:  # noqa: BLE001  (somebody else's object)
            return around
        if not isinstance(span_context, otel.SpanContext) or not span_context.is_valid:
            return (None, None)
        return self._place_elsewhere(span_context, around)

    def _shown(self, context: Context, component: Component, run: TraceContext | None) -> Context:
        shown = _shown_var.get()
        if shown is None or shown.context is not context or shown.component is not component or shown.run is not run:
            shown = _Shown(context, component, run, _showing(context, component, run))
            _shown_var.set(shown)
        return shown.answer


def _showing(context: Context, component: Component, run: TraceContext | None) -> Context:
    """`context`, with what is current in asynctrace as its span."""
    if isinstance(component, Suppressed):
        return Context({**context, SUPPRESSED_KEY: True})
    made: dict[str, object] = {key: value for key, value in context.items() if key not in (SPAN_KEY, SUPPRESSED_KEY)}
    face = _face_var.get()
    span = face if face is not None and face._component is component else face_of(component, run)
    if span is not None:
        made[SPAN_KEY] = span
    return Context(made)


def _attachments_down_to(token: _Attachment) -> list[_Attachment]:
    """What stands here from `token` on, the newest first; nothing where it was attached elsewhere, or where what it was
    attached in has been left, and it with that."""
    found: list[_Attachment] = []
    one = _attachment_var.get()
    while one is not None:
        stands = not found or _is_inside(found[-1].restore_component, found[-1].restore_run, one)
        if stands:
            found.append(one)
        if one is token:
            return found if stands else []
        one = one.outer
    return []


def _restore(dropped: list[_Attachment]) -> None:
    """Make current again what was when the last of `dropped` was attached, as far as each of them still has its effect."""
    component, run = component_var.get(), trace_var.get()
    for at in dropped:
        if _is_inside(component, run, at):
            component, run = at.restore_component, at.restore_run
        else:
            _tell_runs(run, at)
    if dropped[-1].process == os.getpid():  # else all that was open at the fork has ended, and is current still
        while component is not None and _was_left(component):
            component = component._restore
    component_var.set(component)
    trace_var.set(run)


def _is_inside(component: Component, run: TraceContext | None, at: _Attachment) -> bool:
    """Whether what is current was entered below what was attached, or is that itself."""
    if at.component is None:
        while run is not None and run is not at.run:
            run = run._restore_run
        return run is at.run
    while component is not None and component is not at.component:
        component = component._restore
    return component is not None


def _tell_runs(run: TraceContext | None, at: _Attachment) -> None:
    """A run that was entered inside is left later: it must not bring back what was attached."""
    while run is not None:
        if at.component is not None and run._restore_component is at.component:
            run._restore_component = at.restore_component
        run = run._restore_run


def _was_left(component: ComponentTraceContext | Suppressed) -> bool:
    """A component of asynctrace's own ends when it is left; a span of OpenTelemetry's may end before that."""
    return isinstance(component, ComponentTraceContext) and component._state == ENDED and not component._shape.scope


def _place_below(around: Component, component: ComponentTraceContext) -> None:
    """Remember, for those who look through `component`, what it was attached in; but for what stands in it itself."""
    with _lock:  # two threads that attach two spans in one another would make a circle
        one = around
        while one is not None and one is not component:
            one = one._restore
        if one is None:
            component._restore = around


def enter(span: Span) -> Any:
    """Make a new span current, as a component is: the next `get_current()` shows it. Returns what `leave()` takes."""
    if not _is_in_place:
        return _the_shared().attach(otel.set_span_in_context(span))
    component, current, outer = span._component, component_var.get(), _face_var.get()
    if current is not SUPPRESSED:
        component._restore = current
        component_var.set(component)
        _face_var.set(span)
    return outer


def leave(span: Span, entered: Any) -> None:
    """What was current before `enter()` is current again."""
    if not _is_in_place:
        _the_shared().detach(entered)
        return
    if _face_var.get() is span:
        _face_var.set(entered)
    span._component._step_out()


class _Functions:
    """The functions of `opentelemetry.context`, where its runtime context cannot be replaced."""

    attach = staticmethod(opentelemetry.context.attach)
    detach = staticmethod(opentelemetry.context.detach)
    get_current = staticmethod(opentelemetry.context.get_current)


_lock = threading.Lock()
_shared: SharedContext | None = None
_is_in_place = False
"""Whether OpenTelemetry's own functions go through it."""


def share_context(place_elsewhere: PlaceElsewhere) -> None:
    """Put the shared context in place, once. Where that cannot be done it warns, and only those spans are current for both
    that `start_as_current_span()` of our tracers makes current."""
    global _shared, _is_in_place
    with _lock:
        if _shared is not None:
            return
        opentelemetry.context.get_current()  # older versions load their runtime context at the first call
        inner = getattr(opentelemetry.context, "_RUNTIME_CONTEXT", None)
        if not isinstance(inner, RuntimeContext):
            _shared = SharedContext(_Functions(), place_elsewhere)
            warnings.warn(
                "asynctrace does not know how this version of opentelemetry-api keeps its context: a span that is only "
                "attached to a context is not the parent of components, and no component is the current span of others",
                RuntimeWarning,
                stacklevel=3,
            )
            return
        _shared = SharedContext(inner, place_elsewhere)
        opentelemetry.context._RUNTIME_CONTEXT = _shared  # type: ignore[assignment]  # it need not be one of theirs
        _is_in_place = True


def _the_shared() -> SharedContext:
    """The shared context; there is one as soon as there is a provider."""
    if _shared is None:
        raise RuntimeError("there is no provider yet")  # not reached: providers are made first
    return _shared
