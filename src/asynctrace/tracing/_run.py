"""A run: a trace opened by `trace()`, with a root span of its own and what all its components share.

    trace()  ──▶ TraceContext ── enter ──▶ current run, no current component ── leave ──▶ what was current before

The root span is a component that is never the current one; components opened directly in the run are its children.
A run entered inside another is a child of the current component, in the same trace, with its own session and user, or
those of the run around it where it names none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .._contracts import Ending, StatusCode
from .._errors import MisuseError
from ..propagation import NO_BAGGAGE, Baggage, Carried, RemoteSpan, make_carrier, read_carrier
from ..wire import encode_attribute
from ._component import NEW, ComponentTraceContext
from ._heads import trace_state_field
from ._scope import Suppressed, component_var, trace_var

if TYPE_CHECKING:
    from ._encoder import Encoder
    from ._recorder import Recorder

__all__ = ["TraceContext"]


class TraceContext:
    """What identifies a run, and the handle of its root span. Made by `trace()`; made by `from_carrier()` or `extract()`, or
    by hand with `trace_id` and `span_id`, it stands for a remote caller's and is given to `trace(context=…)`.

    `trace_id` has 32 hex digits, `span_id` (of the root span, or of the remote parent) 16; both are `""` before entry, and
    where a carrier had nothing that could be used. `tracestate` is that of W3C Trace Context, handed on as it came but for
    what a sampler writes there, and `is_random` its flag: the trace id's last 7 bytes are. `baggage` goes along to every
    service behind. It can be pickled: what arrives is what `from_carrier(to_carrier())` gives.
    """

    __slots__ = (
        "_baggage",
        "_common",
        "_invalid",
        "_is_debug",
        "_recorder",
        "_remote_parent",
        "_restore_component",
        "_restore_run",
        "_root",
        "_span_id",
        "_trace_id",
        "is_random",
        "is_sampled",
        "metadata",
        "name",
        "project",
        "run_id",
        "session_id",
        "tags",
        "tracestate",
        "user_id",
    )

    def __init__(
        self,
        *,
        trace_id: str = "",
        span_id: str = "",
        run_id: str | None = None,
        name: str = "",
        session_id: str | None = None,
        user_id: str | None = None,
        project: str | None = None,
        tags: Sequence[str] = (),
        metadata: Mapping[str, Any] | None = None,
        is_sampled: bool = True,
        tracestate: str = "",
        is_random: bool = False,
    ) -> None:
        self.name = name
        self.run_id = run_id
        self.session_id = session_id
        self.user_id = user_id
        self.project = project
        self.tags = tuple(tags)
        self.metadata = dict(metadata) if metadata else {}
        self.is_sampled = is_sampled
        self.tracestate = tracestate
        self.is_random = is_random
        self._baggage = NO_BAGGAGE
        self._is_debug = False
        self._invalid = ""
        self._trace_id = trace_id
        self._span_id = span_id
        self._remote_parent = ""
        self._recorder: Recorder | None = None
        self._root: ComponentTraceContext | None = None
        self._common = b""
        self._restore_run: TraceContext | None = None
        self._restore_component: ComponentTraceContext | Suppressed | None = None

    @classmethod
    def _of(
        cls,
        recorder: Recorder,
        name: str,
        run_id: str | None,
        session_id: str | None,
        user_id: str | None,
        project: str | None,
        tags: Sequence[str] | None,
        metadata: Mapping[str, Any] | None,
    ) -> TraceContext:
        """A run to be entered. Going through the constructor adds a tenth to the cost of a whole run."""
        run = cls.__new__(cls)
        run._recorder = recorder
        run.name = name
        run.run_id = run_id
        run.session_id = session_id
        run.user_id = user_id
        run.project = project
        run.tags = tuple(tags) if tags else ()
        run.metadata = dict(metadata) if metadata else {}
        run.is_sampled = True
        run.is_random = recorder._random_ids
        run._is_debug = False
        run._baggage = NO_BAGGAGE
        run._trace_id = run._span_id = run._remote_parent = run._invalid = run.tracestate = ""
        run._root = run._restore_run = run._restore_component = None
        run._common = b""
        return run

    # Across borders ----------------------------------------------------------------------------------------------

    def to_carrier(self) -> dict[str, Any]:
        """This place of the run for another process: the current component if it is one of this run, else the root span.

        Texts, numbers, lists and mappings, under 2,000 bytes as JSON, with the `traceparent` of W3C Trace Context in it; what
        does not fit is left out, metadata first, then baggage. Raises `MisuseError` before entry, when there are no ids yet.
        """
        if not self.trace_id:
            raise MisuseError(
                "a run has ids once it is entered: async with tracer.trace('name') as run: run.to_carrier()"
            )
        current, span_id = component_var.get(), self.span_id
        if isinstance(current, ComponentTraceContext) and current._run is self:
            span_id = current.span_id
        return make_carrier(self._carried(self._remote(self.trace_id, span_id, self.is_sampled)))

    @classmethod
    def from_carrier(cls, carrier: object) -> TraceContext:
        """The caller's run, for `trace(context=…)`, from `to_carrier()` or a mapping with a `traceparent`.

        Never raises. A carrier that is malformed, too large or of a newer version gives a context without ids: the run that
        is made with it starts a trace of its own, which is counted in `statistics().ignored_contexts` and told of once.
        """
        carried = read_carrier(carrier)
        if not isinstance(carried, str):
            return cls._from(carried)
        context = cls()
        context._invalid = carried
        return context

    @classmethod
    def _from(cls, carried: Carried) -> TraceContext:
        span = carried.span
        context = cls(
            trace_id=span.trace_id,
            span_id=span.span_id,
            is_sampled=span.is_sampled,
            tracestate=span.tracestate,
            is_random=span.is_random,
            run_id=carried.run_id,
            name=carried.name,
            session_id=carried.session_id,
            user_id=carried.user_id,
            project=carried.project,
            tags=carried.tags,
            metadata=carried.metadata,
        )
        context._is_debug, context._baggage = span.is_debug, carried.baggage
        return context

    def _remote(self, trace_id: str, span_id: str, is_sampled: bool) -> RemoteSpan:
        """A span of this run, as the far side of a border sees it."""
        return RemoteSpan(trace_id, span_id, is_sampled, self.tracestate, self.is_random, self._is_debug)

    def _carried(self, span: RemoteSpan) -> Carried:
        return Carried(
            span=span,
            run_id=self.run_id,
            name=self.name,
            session_id=self.session_id,
            user_id=self.user_id,
            project=self.project,
            tags=self.tags,
            metadata=self.metadata,
            baggage=self._baggage,
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return TraceContext.from_carrier, (self.to_carrier(),)

    # Baggage -----------------------------------------------------------------------------------------------------

    @property
    def baggage(self) -> Baggage:
        """Texts by key: the caller's, of the run around this one, and what was set here; masked. A mapping that never
        changes: after `set_baggage()` there is another one."""
        return self._baggage

    def set_baggage(self, key: str, value: str) -> None:
        """Let `value` go along under `key`, to every service that is called from now on in this run and in runs inside it.

        Every service behind can read it: a value that is or is named like a secret is masked. A key that is a secret itself,
        and what no longer fits (64 entries, 8192 bytes), is not set, which is counted in `statistics().ignored_contexts`.
        Raises `TypeError`, and `MisuseError` for a key with other characters than letters, digits and ``!#$%&'*+-.^_`|~``.
        """
        if not (isinstance(key, str) and isinstance(value, str)):
            raise TypeError('baggage is text under text, run.set_baggage("tenant", "t-1")')
        entry = NO_BAGGAGE.with_entry(key, value)
        if entry and self._recorder is not None:
            entry = self._recorder._encoder.masked_baggage(entry)
        baggage = self._baggage.with_entry(key, entry[key]) if entry else None
        if baggage is not None:
            self._baggage = baggage
        elif self._recorder is not None:
            self._recorder._ignored("baggage")

    def remove_baggage(self, key: str) -> None:
        """Let nothing go along under `key` any more."""
        self._baggage = self._baggage.without(key)

    # Entering and leaving ----------------------------------------------------------------------------------------

    def _enter(self) -> TraceContext:
        if self._recorder is None:
            raise MisuseError("a remote context is not entered: async with tracer.trace('name', context=context): …")
        self._recorder._enter_run(self)
        return self

    def _exit_as(self, ending: Ending) -> None:
        """Leave with an ending that no exception tells of."""
        self._step_out()
        if self._root is not None:
            self._tell_of_refused(self._root)
            self._root._end_apart(ending)

    def _step_out(self) -> None:
        if trace_var.get() is self:
            trace_var.set(self._restore_run)
            component_var.set(self._restore_component)
        else:
            self._step_aside()

    def _leave(self, exc: BaseException | None) -> bytes | None:
        self._step_out()
        root = self._root
        if root is None:
            return None
        self._tell_of_refused(root)
        return root._end(Ending.OK) if exc is None else root._end_by(exc)  # it was never the current component

    def _tell_of_refused(self, root: ComponentTraceContext) -> None:
        """Say on the root span how many spans of the trace found no room in the span log."""
        refused = root._recorder._sink.refused_traces
        if refused and (count := refused.pop(root._trace_id, 0)):
            root.set_attribute("asynctrace.dropped_spans", count)

    def _step_aside(self) -> None:
        """Left while a run inside is current: that one must not bring this one back."""
        inner = trace_var.get()
        while inner is not None:
            if inner._restore_run is self:
                inner._restore_run = self._restore_run
                if inner._restore_component is None:
                    inner._restore_component = self._restore_component
            inner = inner._restore_run

    async def __aenter__(self) -> TraceContext:
        return self._enter()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        record = self._leave(exc)
        if record is not None and self._root is not None:
            recorder = self._root._recorder
            if not recorder._append_nowait(record):
                await recorder._append_waiting(record, exc)
            if recorder._slab is not None:
                self._root._forget_open()

    def __enter__(self) -> TraceContext:
        return self._enter()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        record = self._leave(exc)
        if self._root is not None:
            self._root._store(record)

    # The root span -----------------------------------------------------------------------------------------------

    def add_log(self, message: str, /, **fields: object) -> None:
        """Add a log line to the root span."""
        self._span().add_log(message, **fields)

    def set_outputs(self, outputs: object, metadata: Mapping[str, object] | None = None) -> None:
        """Set what the run produced, a snapshot."""
        self._span().set_outputs(outputs, metadata)

    def set_attribute(self, key: str, value: object) -> None:
        """Set an attribute of the root span."""
        self._span().set_attribute(key, value)

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """`set_attribute()` for each item."""
        self._span().set_attributes(attributes)

    def set_name(self, name: str) -> None:
        """Name the run and its root span anew."""
        root = self._span()
        root.set_name(name)
        if root.is_recording:
            root.set_attribute("asynctrace.run.name", name)
        self.name = name

    def set_status(self, status: StatusCode | str, message: str = "") -> None:
        """Set the OTLP status of the root span; it wins over the ending's own."""
        self._span().set_status(status, message)

    def record_exception(self, exc: BaseException) -> None:
        """Add an exception to the root span; the run goes on."""
        self._span().record_exception(exc)

    def _span(self) -> ComponentTraceContext:
        if self._root is not None:
            return self._root
        if self._recorder is None:
            raise MisuseError("a remote context has no span here: async with tracer.trace('name', context=context): …")
        return self._recorder._nothing

    @property
    def trace_id(self) -> str:
        return self._root.trace_id if self._root is not None and self._root._state != NEW else self._trace_id

    @property
    def span_id(self) -> str:
        return self._root.span_id if self._root is not None and self._root._state != NEW else self._span_id

    def __repr__(self) -> str:
        return f"<TraceContext {self.name!r} trace_id={self.trace_id!r} run_id={self.run_id!r}>"

    # Below the public face ---------------------------------------------------------------------------------------

    def _inherit(self, other: TraceContext) -> None:
        """Take over what this run does not name itself."""
        for field in ("session_id", "user_id", "project"):
            if getattr(self, field) is None:
                setattr(self, field, getattr(other, field))
        if other._baggage is not NO_BAGGAGE:
            self._baggage = self._baggage.over(other._baggage)

    def _go_on_in(self, other: TraceContext) -> None:
        """Become part of the trace that `other` is part of."""
        self.tracestate, self.is_random, self._is_debug = other.tracestate, other.is_random, other._is_debug

    def _encode_common(self, encoder: Encoder) -> None:
        """What every span of the run carries: the `tracestate`, `session.id`, `user.id`."""
        if self.session_id is None and self.user_id is None and not self.tracestate:
            return
        fields = (("session.id", self.session_id), ("user.id", self.user_id))
        attributes = [
            encode_attribute(b"\x4a", key, encoder.capture.attribute(value, key))
            for key, value in fields
            if value is not None
        ]
        self._common = b"".join([trace_state_field(self.tracestate), *attributes])
