"""What a tracer owns in its process, and in no other: log, lanes, journal, recovery, dead letters, callbacks, randomness.

Made when the tracer is made, and once more in each forked child. The parts know their tracer by a weak reference: a
tracer that is forgotten is kept alive by the registry, not by what it owns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextvars import Context
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import uuid4
from weakref import ref

from .._contracts import IdSource, Scope
from ..delivery import Callbacks, DeadLetters, Delivery, Origin
from ..spanlog import SpanLog
from ..tracing._notices import Notice, open_notices
from ..tracing._scope import SUPPRESSED, component_var
from ._journal import Journaling, make_log
from ._options import Settings, dead_letters_in
from ._recovery import Recovery
from ._resource import SDK_VERSION, make_resource
from ._sources import RandomIds

if TYPE_CHECKING:
    from ._tracer import Tracer

__all__ = ["Parts", "lane_context", "make_parts"]


class Parts(NamedTuple):
    """One tracer's."""

    ids: IdSource
    log_id: str
    log: SpanLog
    delivery: Delivery
    journaling: Journaling | None
    callbacks: Callbacks | None
    dead_letters: DeadLetters | None


def make_parts(tracer: Tracer, settings: Settings, drain_timeout: float) -> Parts:
    """The parts of `tracer` in this process."""
    tell = _Weakly(tracer)
    resource = make_resource(settings.service, settings.resource, settings.resource_of_environment)
    origin = Origin.of(str(uuid4()), resource, Scope(name="asynctrace", version=SDK_VERSION))
    log = make_log(
        settings.journal,
        capacity_bytes=settings.capacity_bytes,
        capacity_spans=settings.capacity_spans,
        when_full=settings.when_full,
        on_ready=tell.ready,
    )
    callbacks = _make_callbacks(settings, tell.failed)
    dead_letters = _make_dead_letters(settings)

    def make_delivery(log: Any, exporters: Any, origin: Origin, **more: Any) -> Delivery:
        """Also for what dead processes left."""
        return Delivery(
            log,
            exporters,
            origin=origin,
            drain_timeout=drain_timeout,
            diagnostics=settings.diagnostics,
            random=RandomIds()._random.random,
            new_context=lane_context,
            dead_letters=dead_letters,
            callbacks=callbacks,
            **more,
        )

    delivery = make_delivery(
        log,
        settings.exporters,
        origin,
        options=settings.delivery,
        on_home=tell.moved_in,
        open_spans=tell.open_spans,
    )
    journaling = None
    if settings.journal is not None:
        recovery = Recovery(
            settings.journal,
            settings.service,
            settings.exporters,
            make_delivery,
            options=settings.delivery,
            drain_timeout=drain_timeout,
            diagnostics=settings.diagnostics,
            time_ns=settings.clock.time_ns,
            new_context=lane_context,
            callbacks=callbacks,
        )
        journaling = Journaling(
            settings.journal,
            service=settings.service,
            origin=origin,
            log=log,  # type: ignore[arg-type]  # with settings for a journal it is one that can be attached
            delivery=delivery,
            recovery=recovery,
            lanes=[name for name, _ in settings.exporters],
            time_ns=settings.clock.time_ns,
            diagnostics=settings.diagnostics,
            use=tell.use_slab,
            parent=tell.parent,
        )
    return Parts(settings.ids or RandomIds(), origin.log_id, log, delivery, journaling, callbacks, dead_letters)


def _make_callbacks(settings: Settings, on_error: Callable[[BaseException], None]) -> Callbacks | None:
    if not settings.callbacks:
        return None
    given = settings.callbacks
    return Callbacks(
        on_drop=given.get("on_drop"),
        on_reject=given.get("on_reject"),
        on_spool=given.get("on_spool"),
        on_recover=given.get("on_recover"),
        diagnostics=settings.diagnostics,
        on_error=on_error,
        new_context=lane_context,
    )


def _make_dead_letters(settings: Settings) -> DeadLetters | None:
    """In the state directory of the journal; none where everything is kept in memory."""
    if settings.journal is None:
        return None
    return DeadLetters(
        dead_letters_in(settings.journal.state, settings.service),
        service=settings.service,
        time_ns=settings.clock.time_ns,
        diagnostics=settings.diagnostics,
    )


class _Weakly:
    """What the parts tell their tracer, which does not have them yet when they are made."""

    def __init__(self, tracer: Tracer) -> None:
        self._reference = ref(tracer)

    def ready(self) -> None:
        tracer = self._reference()
        if tracer is not None:
            tracer._delivery.on_ready()

    def failed(self, error: BaseException) -> None:
        tracer = self._reference()
        if tracer is not None:
            tracer._count_error(error)

    def moved_in(self, loop: asyncio.AbstractEventLoop) -> None:
        tracer = self._reference()
        if tracer is not None and tracer._journaling is not None:
            tracer._journaling.moved_in(loop)

    def open_spans(self) -> Iterable[Notice]:
        """None once it shuts down: what is open then ends, or is cut."""
        tracer = self._reference()
        return () if tracer is None or tracer._is_closed else open_notices(tracer)

    def parent(self) -> str:
        """Asked when the journal is opened: until then a child that was told where it comes from may still be told."""
        tracer = self._reference()
        return "" if tracer is None else tracer._parent_log

    def use_slab(self, slab: Any) -> None:
        tracer = self._reference()
        if tracer is not None:
            tracer._slab = slab


def lane_context() -> Context:
    """An empty context in which nothing is traced."""
    context = Context()
    context.run(component_var.set, SUPPRESSED)
    return context
