"""A component: one span, from `trace_component()` to the record in the span log.

    NEW ── enter ──▶ OPEN ── leave, end(), collected, cut ──▶ ENDED         each arrow is taken once

Promises:

1. The parent is captured on entry. Leaving restores, by value, what was current before.
2. A component ends exactly once; ending it again, or writing to it afterwards, is counted and does nothing.
3. What is given (inputs, outputs, logs, attributes) is captured when it is given; later changes do not show.
4. Times are taken at the call site. The duration is monotonic; the start is the wall clock at the trace's first
   component plus a monotonic distance, so a jump of the wall clock moves no child out of its parent.
5. An open component whose handle is collected ends `abandoned`.

`trace_component`, `_enter`, `set_attribute`, `_leave`, `_end` and `_encode` are the hot path: every call and every
attribute in them is paid by each span of a traced program (see benchmarks/application_cost.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from struct import Struct
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from .._contracts import MOST_NOTED, Ending, Link, StatusCode
from .._errors import MisuseError
from ..wire import decode_span, encode_span, encode_varint, frame
from ..wire._span import FRAMES
from ..wire._values import encode_text
from ..wire._varint import VARINTS
from ._decorator import decorate
from ._endings import STATUS_OF, TAILS, classify
from ._extras import OURS, Extras, check_metadata, parse_status
from ._heads import head, head_below
from ._model_calls import ModelCalls
from ._scope import Suppressed, component_var, trace_var
from ._shape import Shape
from ._stream import observe
from ._stream_notes import StreamNotes

if TYPE_CHECKING:
    from ._recorder import Recorder
    from ._run import TraceContext

__all__ = ["ENDED", "NEW", "OPEN", "UNRECORDED", "ComponentTraceContext"]

F = TypeVar("F", bound=Callable[..., Any])
S = TypeVar("S")

NEW: Final = 0
OPEN: Final = 1
ENDED: Final = 2
UNRECORDED: Final = 3
"""Entered, and not recorded (see `_unrecorded.py`)."""

_OK: Final = Ending.OK  # looking it up in its class costs 45 ns on 3.11
_BRIEF_NAME: Final = 64  # bytes of a name in a note that would not fit whole
_UNSUSPECTED: Final = 10**12  # an integer below it is no card number
_FRAMES_KNOWN: Final = len(FRAMES)
_VARINTS_KNOWN: Final = len(VARINTS)
# CPython 3.11 makes a bound method for each call of one on an imported name, and looks up in vain whether what an
# attribute holds is a method; so on the hot path both are taken out first.
_current: Final = component_var.get
_make_current: Final = component_var.set
_pack_double = Struct("<d").pack
_pack_start = Struct("<Q").pack
_pack_times = Struct("<QBQ").pack  # the start, whose tag ends the shape, and the end with its tag


class ComponentTraceContext(ModelCalls):
    """The handle of one component, made by `trace_component()`: a context manager, async and plain, and a decorator.

    Ids are lower-case hex (W3C Trace Context): `span_id` has 16 digits, `parent_id` too, or none at a root.
    """

    __slots__ = (
        "__weakref__",
        "_attributes",
        "_child_head",
        "_extras",
        "_head",
        "_id",
        "_offset",
        "_parent",
        "_place",
        "_recorder",
        "_restore",
        "_run",
        "_shape",
        "_start",
        "_state",
    )

    _recorder: Recorder
    _shape: Shape
    _attributes: dict[str, bytes]  # encoded, by key
    _extras: Extras | None
    _state: int
    # Set on entry:
    _head: bytes  # what all children of one parent share: trace id, parent id, flags, the run's attributes
    _child_head: bytes | None  # the same for this one's children, made for the first of them
    _id: bytes
    _parent: ComponentTraceContext | None
    _restore: ComponentTraceContext | Suppressed | None
    _run: TraceContext | None  # None in a trace without a run; in a run's root span too, or the two were a cycle
    _offset: int  # wall clock minus monotonic clock at the trace's first component, in nanoseconds
    _place: int  # of its note among the open spans of a journal; only where there is a slab
    _start: int  # monotonic nanoseconds

    def __init__(self) -> None:
        raise MisuseError("components are made by trace_component(): async with tracer.trace_component('name') as c: …")

    # Entering and leaving ----------------------------------------------------------------------------------------

    async def __aenter__(self) -> ComponentTraceContext:
        if self._state:
            raise MisuseError("a component is entered once: call trace_component() again for the next one")
        recorder = self._recorder
        parent: Any  # a component; a cast to say so would cost a call
        current = _current()
        if current is None:
            run = trace_var.get()
            if run is None and recorder._samples_all:
                return recorder._enter_root(self)
            if run is None or run._recorder is not recorder or (parent := run._root) is None:
                return recorder._enter_apart(self, current)
            self._run = run
        elif current._recorder is recorder:
            parent = current
            self._run = parent._run
        else:
            return recorder._enter_apart(self, current)
        self._parent = parent
        self._restore = current
        self._head = front = parent._child_head or parent._make_child_head()
        self._offset = offset = parent._offset
        new_id, monotonic_ns = recorder._span_id, recorder._monotonic_ns
        self._id = new_id()
        self._state = OPEN
        recent = recorder._recent
        recent.append(self)
        if len(recent) >= 64:  # MOST_RECENT
            recorder._open.sift()
        _make_current(self)
        self._start = start = monotonic_ns()
        slab = recorder._slab
        if slab is not None:
            # As in `OpenSlab.enter()`, in one call: making the body first and copying it costs half as much again.
            try:
                write, state = self._shape.notes[len(front)]
                self._place = place = slab.free.pop()
                write(slab.memory, (place << 3) - 248, front, self._id, self._shape.encoded, start + offset, state)
            except Exception:  # noqa: BLE001  (no room, a long body, the first of its kind)
                self._note_at_length()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        recorder = self._recorder
        if exc is None and self._extras is None and _current() is self:
            # _leave() and _end() for the most common case: their calls are a thirtieth of the whole span.
            monotonic_ns = recorder._monotonic_ns
            now = monotonic_ns()
            _make_current(self._restore)
            if self._state != OPEN:  # and no call until it is set, as in _end()
                self._not_open()
                return
            self._state = ENDED
            record: bytes | None
            try:
                start = self._start
                offset = self._offset
                times = _pack_times(start + offset, 0x41, now + offset)
                body = b"".join([self._head, self._id, self._shape.ended_ok, times, *self._attributes.values()])
                size = len(body)
                record = FRAMES[size] + body if size < _FRAMES_KNOWN else self._framed(body)
            except Exception as error:  # noqa: BLE001  (tracing never breaks the traced program)
                record = self._not_encoded(error)
        else:
            record = self._leave(exc)
        append_nowait = recorder._append_nowait
        if record is not None and not append_nowait(record):
            await recorder._append_waiting(record, exc)
        slab = recorder._slab
        if slab is not None:
            place, self._place = self._place, -1  # once: it may be another span's by the next time
            try:  # as in `OpenSlab.leave()`
                if place > 0:
                    slab.words[place] = 0
                    slab.free.append(place)
            except IndexError:  # it was closed meanwhile
                return

    def __enter__(self) -> ComponentTraceContext:
        return self._enter()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._store(self._leave(exc))

    def __call__(self, function: F) -> F:
        """Decorate a function, a coroutine function, a generator or an async generator: each call is a component.

        A decorated generator runs each step in a context of its own, so its component is never the consumer's.
        """
        return decorate(self._recorder._template_of(self), function)

    def start(self) -> ComponentTraceContext:
        """Enter without a block; `end()` is then the caller's to call. A handle that is lost ends `abandoned`."""
        return self._enter()

    def end(self) -> None:
        """End the component here, ending `ok`. What was current before it is current again."""
        if self._state == NEW:
            raise MisuseError("end() before entry: component = tracer.trace_component('name').start(); component.end()")
        self._store(self._leave(None))

    def __del__(self) -> None:
        try:
            if self._state == OPEN:
                self._store(self._end(Ending.ABANDONED))
        except AttributeError:
            return  # never completed: trace_component() raised

    def _enter(self) -> ComponentTraceContext:
        """`__aenter__()` for plain code. It never waits, so one step takes it to its end."""
        try:
            self.__aenter__().send(None)
        except StopIteration:
            return self
        raise MisuseError("entering a component waits for nothing")  # not reached

    def _leave(self, exc: BaseException | None) -> bytes | None:
        self._step_out()
        return self._end(_OK) if exc is None else self._end_by(exc)

    def _exit_as(self, ending: Ending) -> None:
        """Leave with an ending that no exception tells of."""
        self._step_out()
        self._store(self._end(ending))

    def _end_apart(self, ending: Ending, end_ns: int | None = None) -> None:
        """End without leaving: it was never entered, only opened."""
        self._store(self._end(ending, end_ns))
        run = self._run
        if run is not None and run._root is self:  # opened below a span of another process
            run._trace_id, run._span_id, run._root = self.trace_id, self.span_id, None

    def _step_out(self) -> None:
        if component_var.get() is self:
            component_var.set(self._restore)
        else:
            self._restore_from_afar()

    def _restore_from_afar(self) -> None:
        """Left while something else is current: restore only where that was entered below this component."""
        inner = component_var.get()
        while inner is not None and inner is not self:
            inner = inner._restore
        if inner is self:
            component_var.set(self._restore)
            return
        run = trace_var.get()
        while run is not None:  # a run that was entered inside is left later: it must not bring this one back
            if run._restore_component is self:
                run._restore_component = self._restore
            run = run._restore_run

    # Ending ------------------------------------------------------------------------------------------------------

    def _end(self, ending: Ending, end_ns: int | None = None) -> bytes | None:
        """The record of this component; None when it has ended before, or could not be encoded. `end_ns` is a wall-clock
        time that somebody else took, in nanoseconds."""
        recorder = self._recorder
        now = recorder._monotonic_ns() if end_ns is None else end_ns - self._offset
        # No call stands between these lines, so of two threads that end one component only one gets past them.
        if self._state != OPEN:
            self._not_open()
            return None
        self._state = ENDED
        try:
            times = _pack_times(self._start + self._offset, 0x41, now + self._offset)
            return self._framed(self._encode(ending, times))
        except Exception as error:  # noqa: BLE001  (tracing never breaks the traced program)
            return self._not_encoded(error)

    def _not_open(self) -> None:
        self._recorder._count_late("end")

    def _framed(self, body: bytes) -> bytes:
        recorder = self._recorder
        return frame(body) if len(body) <= recorder._span_bytes else recorder._encoder.cut_record(body)

    def _not_encoded(self, error: Exception) -> bytes | None:
        self._recorder._failed(error)
        self._recorder._sink.refuse("internal_error")
        return None

    def _end_by(self, exc: BaseException) -> bytes | None:
        recorder = self._recorder
        try:
            ending = classify(exc, recorder._cancelled_types)
            if ending in (Ending.ERROR, Ending.TIMEOUT):
                self._note_exception(exc, ending)
        except Exception as error:  # noqa: BLE001  (tracing never breaks the traced program)
            recorder._failed(error)
            ending = Ending.ERROR
        return self._end(ending)

    def _encode(self, ending: Ending, times: bytes) -> bytes:
        extras = self._extras
        if extras is None and ending is _OK:
            return b"".join([self._head, self._id, self._shape.ended_ok, times, *self._attributes.values()])
        front = (self._head, self._id, self._shape.encoded, times)
        if extras is None:
            return b"".join((*front, *self._attributes.values(), TAILS[ending]))
        if extras.stream is not None:
            extras.stream.settle(extras)
        body = b"".join((*front, extras.encoded(), *self._attributes.values(), extras.tail(ending)))
        # Decoding keeps the last of several values for one key: the user's before ours, and the ending before both.
        return encode_span(decode_span(body)) if extras.repeats_our_keys else body

    def _encode_attribute(self, key: str, value: object) -> bytes:
        field = self._recorder._encoder.attribute(key, value)
        if key in OURS:
            self._extend().repeats_our_keys = True
        return field

    def _store(self, record: bytes | None) -> None:
        recorder = self._recorder
        if record is not None and not recorder._append_nowait(record):
            recorder._sink.append_sync(record)
        if recorder._slab is not None:
            self._forget_open()

    def _forget_open(self) -> None:
        """Its record is stored, or counted as lost. Once: the place may be another span's by the next time."""
        slab, place = self._recorder._slab, self._place
        self._place = -1
        if slab is not None:
            slab.leave(place)

    def _note_open(self) -> None:
        """Write down, for whoever comes after this process, that the span is open."""
        slab: Any = self._recorder._slab
        shape, front = self._shape, self._head
        try:  # as in `__aenter__()`
            write, state = shape.notes[len(front)]
            self._place = place = slab.free.pop()
            write(slab.memory, (place << 3) - 248, front, self._id, shape.encoded, self._start + self._offset, state)
        except Exception:  # noqa: BLE001  (as there)
            self._note_at_length()

    def _note_at_length(self) -> None:
        """The same where there is no room, the body may be too long, or it is the first of its kind."""
        recorder = self._recorder
        slab: Any = recorder._slab
        start = _pack_start(self._start + self._offset)
        try:
            body = b"".join((self._head, self._id, self._shape.encoded, start))
            self._place = slab.enter(body if len(body) <= MOST_NOTED else self._brief(start))
            if len(body) < len(slab.states):
                self._shape.learn_to_note(len(self._head), slab.states[len(body)])
        except Exception as error:  # noqa: BLE001  (tracing never breaks the traced program)
            self._place = -1
            recorder._failed(error)

    def _brief(self, start: bytes) -> bytes:
        """As much of an open span as its place in the slab can hold: which it is, where it stands, and its name, cut."""
        name = encode_text(self._shape.name)[:_BRIEF_NAME].decode("utf-8", "ignore")
        shape = Shape(name, None, self._shape.kind, name)
        bare = head(self._trace_id, self._parent._id if self._parent is not None else b"", None)
        return b"".join((bare, self._id, shape.encoded, start))

    def _make_child_head(self) -> bytes:
        if self._parent is not None:
            made = head_below(self._head, self._id)
        else:
            made = head(self._trace_id, self._id, self._run, random=self._recorder._random_ids)
        self._child_head = made
        return made

    # What the user adds ------------------------------------------------------------------------------------------

    def set_name(self, name: str) -> None:
        """Name the span anew, as a web framework does once it knows the route. Raises `TypeError` for what is no text."""
        shape = self._shape
        renamed = self._recorder._shape_of(name, shape.type, shape.kind, shape.scope)
        if self._is_late("set_name"):
            return
        self._shape = renamed
        if self._state == OPEN and self._recorder._slab is not None:
            self._forget_open()
            self._note_open()

    def set_attribute(self, key: str, value: Any) -> None:
        """Set an attribute; the last value for a key stays. Texts are masked and cut (`Limits.attribute_bytes`)."""
        if self._state == ENDED:
            self._recorder._count_late("set_attribute")
            return
        recorder = self._recorder
        kind = value.__class__
        try:
            if kind is str:  # encoded pairs of key and short text are remembered, which also saves masking them again
                field = recorder._pairs[key][value]
            else:
                heads = recorder._heads[key]  # known only for keys that are not masked
                if kind is int and -1 < value < _UNSUSPECTED:
                    if value < 128:
                        field = heads.one_byte + VARINTS[value]
                    elif value < _VARINTS_KNOWN:
                        field = heads.two_bytes + VARINTS[value]
                    else:
                        varint = encode_varint(value)
                        field = heads.integers[len(varint)] + varint
                elif kind is bool:
                    field = heads.booleans[value]
                elif kind is float:
                    field = heads.double + _pack_double(value)
                else:
                    field = self._encode_attribute(key, value)
        except (KeyError, TypeError):  # not known yet; a key that is not hashable raises again, and clearly
            field = self._encode_attribute(key, value)
        attributes = self._attributes
        if len(attributes) >= recorder._attribute_limit and key not in attributes:
            self._extend().dropped_attributes += 1
        else:
            attributes[key] = field

    def set_attributes(self, attributes: Mapping[str, Any]) -> None:
        """`set_attribute()` for each item."""
        if type(attributes) is not dict and not isinstance(attributes, Mapping):
            raise TypeError(f"set_attributes() takes a mapping of attributes, not {type(attributes).__name__}")
        recorder = self._recorder
        limit, set_attribute = recorder._attribute_limit, self.set_attribute
        if self._state == ENDED or len(attributes) > limit:
            for key, value in attributes.items():
                set_attribute(key, value)
            return
        pairs, heads, mine = recorder._pairs, recorder._heads, self._attributes
        for key, value in attributes.items():
            kind = value.__class__
            try:  # short texts and small numbers as in set_attribute(), whose call costs as much again
                if kind is str:
                    mine[key] = pairs[key][value]
                    continue
                if kind is int and -1 < value < _VARINTS_KNOWN:
                    known = heads[key]
                    mine[key] = (known.one_byte if value < 128 else known.two_bytes) + VARINTS[value]
                    continue
            except (KeyError, TypeError):
                pass
            set_attribute(key, value)
        while len(mine) > limit:
            mine.popitem()
            self._extend().dropped_attributes += 1

    def add_log(self, message: str, /, **fields: object) -> None:
        """Add a log line with fields: a span event at this moment."""
        if not isinstance(message, str):
            raise TypeError(f"add_log() takes a message, add_log('cache miss', shard=3), not {type(message).__name__}")
        self._add_event(message, fields)

    def stream(self, source: S, *, text: Callable[[Any], str | None] | None = None) -> S:
        """Iterate `source`, an iterator or async iterator, and note what comes: how many chunks, the time to the first, and
        the chunks themselves as the outputs of this component, as far as they came.

            async for chunk in component.stream(answer, text=lambda chunk: chunk.delta): …

        `text` says what of a chunk is the answer's text; without it texts are joined, and other chunks kept one by one.
        `set_outputs()` wins. Raises `TypeError` for what cannot be iterated.
        """
        return cast(S, observe(self, source, text))

    def set_outputs(self, outputs: object, metadata: Mapping[str, object] | None = None) -> None:
        """Set what the component produced (a snapshot), and metadata; later calls replace earlier ones."""
        check_metadata(metadata)
        if self._is_late("set_outputs"):
            return
        self._extend().put("output", self._recorder._encoder.captured("output", outputs))
        if metadata is not None:
            self._extend().put("metadata", self._recorder._encoder.metadata(metadata))

    def record_exception(self, exc: BaseException) -> None:
        """Add an `exception` event (OpenTelemetry semantic conventions, exceptions); the ending stays open."""
        if not isinstance(exc, BaseException):
            raise TypeError(f"record_exception() takes an exception, not {type(exc).__name__}")
        name, message, stacktrace = self._recorder._encoder.capture.exception(exc)
        self._add_event(
            "exception",
            {"exception.type": name, "exception.message": message, "exception.stacktrace": stacktrace},
        )

    def set_status(self, status: StatusCode | str, message: str = "") -> None:
        """Set the OTLP status: "ok", "error" or "unset", and a message; it wins over the ending's own."""
        code = parse_status(status)
        if not isinstance(message, str):
            raise TypeError(f"set_status() takes a message text, not {type(message).__name__}")
        if not self._is_late("set_status"):
            self._extend().status = (code, self._recorder._encoder.text(message))

    # What can be read --------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self._shape.name

    @property
    def type(self) -> str | None:
        return self._shape.type

    @property
    def span_id(self) -> str:
        """16 hex digits; empty before entry."""
        return self._id.hex() if self._state else ""

    @property
    def parent_id(self) -> str:
        """16 hex digits; empty at a root and before entry."""
        if not self._state:
            return ""
        if self._parent is not None:
            return self._parent._id.hex()
        return self._run._remote_parent if self._run is not None else ""

    @property
    def trace_id(self) -> str:
        """32 hex digits; empty before entry."""
        return self._trace_id.hex() if self._state else ""

    @property
    def trace(self) -> TraceContext:
        """The run this component belongs to."""
        if not self._state:
            raise MisuseError("a component has a trace once it is entered: async with tracer.trace_component(…) as c")
        return self._run or self._recorder._implied_run(self)

    @property
    def is_recording(self) -> bool:
        """True from entry to end."""
        return self._state == OPEN

    def __repr__(self) -> str:
        state = ("new", "open", "ended")[min(self._state, ENDED)]
        return f"<ComponentTraceContext {self.name!r} {self.span_id} {state}>"

    # Below the public face ---------------------------------------------------------------------------------------

    @property
    def _trace_id(self) -> bytes:
        return self._head[2:18]  # after the tag and the length of field 1

    def _extend(self) -> Extras:
        return self._extras or self._recorder._extras_of(self)

    def _is_late(self, call: str) -> bool:
        if self._state != ENDED:
            return False
        self._recorder._count_late(call)
        return True

    def _add_event(self, name: str, fields: Mapping[str, object], time_ns: int | None = None) -> None:
        if self._is_late("add_log"):
            return
        recorder = self._recorder
        extras = self._extend()
        if len(extras.events) >= recorder._limits.events:
            extras.dropped_events += 1
            return
        extras.events.append(recorder._encoder.event(self._wall_ns() if time_ns is None else time_ns, name, fields))

    def _took(self, chunk: object, text: Callable[[Any], str | None] | None = None) -> None:
        """Note a chunk of a stream."""
        if self._state != OPEN:
            return
        extras = self._extend()
        if extras.stream is None:
            extras.stream = StreamNotes(self)
        extras.stream.took(chunk, text)

    def _add_link(self, link: TraceContext | ComponentTraceContext | Link) -> None:
        if self._is_late("add_link"):
            return
        extras = self._extend()
        if len(extras.links) >= self._recorder._limits.links:
            extras.dropped_links += 1
        else:
            extras.links.append(self._recorder._encoder.link(link))

    def _wall_ns(self) -> int:
        recorder = self._recorder
        return recorder._monotonic_ns() + (self._offset if self._state else recorder._clock_offset())

    def _note_exception(self, exc: BaseException, ending: Ending) -> None:
        self.record_exception(exc)
        extras = self._extend()
        if extras.status is None:
            extras.status = (STATUS_OF[ending], self._recorder._encoder.capture.exception(exc)[1])

    def _cut(self) -> None:
        """End it `incomplete`, with what is known so far."""
        self._store(self._end(Ending.INCOMPLETE))
