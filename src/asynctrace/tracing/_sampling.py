"""Who is recorded: the decision is made once, at the first span of a trace here, and its children follow it.

    ALWAYS_ON        every trace                                          (the default)
    ALWAYS_OFF       none; the cheapest way to switch tracing off
    TraceIdRatio     a share of all traces, chosen by trace id, so that every service chooses the same ones
    Probability      the same with the chance written down, so that numbers can be made up for what is missing
    RateLimit        so many traces a second and no more
    ParentBased      as the caller decided; its `root` sampler where there is none

A sampler is a value: it is pickled with its tracer, and each tracer makes of it what it needs (`for_tracer()`).

Source: OpenTelemetry specification, "Built-in samplers", "TraceState: Probability Sampling".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from math import ceil
from typing import Final, Protocol

import msgspec

from .._contracts import SpanKind
from .._errors import ConfigurationError
from ..propagation import LARGEST_THRESHOLD, RemoteSpan, parse_chances, with_threshold

__all__ = [
    "ALWAYS_OFF",
    "ALWAYS_ON",
    "AlwaysOff",
    "AlwaysOn",
    "ParentBased",
    "Probability",
    "RateLimit",
    "Sampler",
    "Sampling",
    "SamplingRequest",
    "TraceIdRatio",
    "ask",
    "asks_inside",
    "for_tracer",
    "is_simple",
]


_MOST_A_SECOND = 100_000


class SamplingRequest(msgspec.Struct, frozen=True):
    """The trace, or the run inside one, that a sampler decides about."""

    trace_id: bytes
    """16 bytes."""
    name: str
    kind: SpanKind = SpanKind.INTERNAL
    parent: RemoteSpan | None = None
    is_remote: bool = True
    """The parent is a span of another process. A local one is asked about only where `asks_inside` says so."""


class Sampling(msgspec.Struct, frozen=True, kw_only=True):
    """A decision with more to say than yes or no."""

    is_sampled: bool
    tracestate: str | None = None
    """What goes on from here, and into the spans; None: the parent's, as it is."""
    attributes: Mapping[str, object] = {}
    """Of the span that is decided about."""


class Sampler(Protocol):
    """Decides for a trace. Must not block.

    A sampler that wants to know more than these three has `decide(request: SamplingRequest) -> Sampling | bool`, which is
    asked instead. One that keeps count has `for_tracer(monotonic_ns) -> Sampler`: what that returns decides, for one
    tracer in one process. One whose `asks_inside` is true is also asked about each run inside a run.
    """

    def is_sampled(self, trace_id: bytes, name: str, remote_decision: bool | None) -> bool | Sampling:
        """`trace_id` has 16 bytes; `remote_decision` is the caller's, or None where there is no caller."""
        ...


def ask(sampler: Sampler, request: SamplingRequest) -> Sampling:
    """What `sampler` decides. Raises what it raises."""
    decide = getattr(sampler, "decide", None)
    if decide is not None:
        decision = decide(request)
    else:
        parent = request.parent
        decision = sampler.is_sampled(request.trace_id, request.name, None if parent is None else parent.is_sampled)
    return decision if isinstance(decision, Sampling) else _plain(bool(decision), request.parent)


def for_tracer(sampler: Sampler, monotonic_ns: Callable[[], int]) -> Sampler:
    """What decides in place of `sampler` for one tracer in one process. `monotonic_ns` is its clock."""
    make = getattr(sampler, "for_tracer", None)
    made: Sampler = sampler if make is None else make(monotonic_ns)
    return made


def asks_inside(sampler: Sampler) -> bool:
    """Whether `sampler` wants to be asked about runs inside runs."""
    return bool(getattr(sampler, "asks_inside", False))


def is_simple(sampler: Sampler) -> bool:
    """Whether its `is_sampled()` says all, where no `tracestate` came in and the parent is remote: it costs a tenth of
    `ask()`."""
    if isinstance(sampler, ParentBased):
        followed = (sampler.root, sampler.remote_parent_sampled, sampler.remote_parent_not_sampled)
        return all(map(is_simple, followed))
    return isinstance(sampler, AlwaysOn) or not hasattr(sampler, "decide")


def _plain(is_sampled: bool, parent: RemoteSpan | None) -> Sampling:
    """A decision of unknown probability: a threshold that came in says nothing about it."""
    if parent is None or "ot=" not in parent.tracestate:
        return Sampling(is_sampled=is_sampled)
    return Sampling(is_sampled=is_sampled, tracestate=with_threshold(parent.tracestate, None))


class AlwaysOn(msgspec.Struct, frozen=True):
    """Record everything."""

    def is_sampled(self, trace_id: bytes, name: str, remote_decision: bool | None) -> bool:
        return True

    def decide(self, request: SamplingRequest) -> Sampling:
        """Where a caller wrote a threshold down, everything is above that of this service."""
        parent = request.parent
        if parent is None or "ot=" not in parent.tracestate or parse_chances(parent.tracestate).threshold is None:
            return _YES
        return Sampling(is_sampled=True, tracestate=with_threshold(parent.tracestate, 0))


class AlwaysOff(msgspec.Struct, frozen=True):
    """Record nothing."""

    def is_sampled(self, trace_id: bytes, name: str, remote_decision: bool | None) -> bool:
        return False


class TraceIdRatio(msgspec.Struct, frozen=True):
    """Record the share `ratio` (0 to 1) of traces: those whose id's last 8 bytes, as a number, lie below it.

    The same as OpenTelemetry's `TraceIdRatioBased` for Python. `Probability` is its successor.
    """

    ratio: float

    def __post_init__(self) -> None:
        _check_ratio("TraceIdRatio", self.ratio)

    def is_sampled(self, trace_id: bytes, name: str, remote_decision: bool | None) -> bool:
        return int.from_bytes(trace_id[8:], "big") < round(self.ratio * (1 << 64))


class Probability(msgspec.Struct, frozen=True):
    """Record a trace with the probability `ratio` (0 to 1), and write that down: `ot=th:…` in the `tracestate`.

    Consistent: of two services with different ratios, the one with the higher records every trace that the other does.
    The chance is the trace id's last 7 bytes, or what `ot=rv:…` says in their place. What a caller decided counts for
    nothing: `ParentBased(Probability(0.1))` follows it.
    """

    ratio: float

    def __post_init__(self) -> None:
        _check_ratio("Probability", self.ratio)

    def is_sampled(self, trace_id: bytes, name: str, remote_decision: bool | None) -> bool:
        return int.from_bytes(trace_id[9:], "big") >= self._threshold

    def decide(self, request: SamplingRequest) -> Sampling:
        tracestate = "" if request.parent is None else request.parent.tracestate
        threshold = self._threshold
        is_sampled = _randomness(request.trace_id, tracestate) >= threshold
        return Sampling(is_sampled=is_sampled, tracestate=with_threshold(tracestate, threshold if is_sampled else None))

    @property
    def _threshold(self) -> int:
        return LARGEST_THRESHOLD - round(self.ratio * LARGEST_THRESHOLD)


class RateLimit(msgspec.Struct, frozen=True):
    """Record at most `per_second` traces in any second, the first ones that come. Below 1: one in so many seconds.

    Counted by each tracer and process for itself, by the tracer's clock. Part of a trace that others record is missing
    where this limit was met: `ParentBased(RateLimit(100))` counts only those that start here.
    """

    per_second: float

    def __post_init__(self) -> None:
        limit = self.per_second
        if isinstance(limit, bool) or not isinstance(limit, int | float) or not 0 < limit <= _MOST_A_SECOND:
            raise ConfigurationError(
                f"RateLimit(per_second) is more than 0 and at most {_MOST_A_SECOND} traces, not {limit!r}"
            )

    def is_sampled(self, trace_id: bytes, name: str, remote_decision: bool | None) -> bool:
        raise TypeError("a RateLimit counts for a tracer: RateLimit(100).for_tracer(time.monotonic_ns).is_sampled(…)")

    def for_tracer(self, monotonic_ns: Callable[[], int]) -> Sampler:
        return _Bucket(self.per_second, monotonic_ns)


class _Bucket:
    """As many tokens as traces are allowed in a second; one that was taken comes back a second later.

    There is no lock: a signal handler, or a finalizer, may start a trace in the middle of this. Each token is held by
    the one that took it out of the deque, in one step, until it is put back.
    """

    def __init__(self, per_second: float, monotonic_ns: Callable[[], int]) -> None:
        count = ceil(per_second)
        self._period = ceil(count / per_second * 1e9)
        self._monotonic_ns = monotonic_ns
        self._tokens = deque([monotonic_ns()] * count)  # when each may be taken, the earliest first

    def is_sampled(self, trace_id: bytes, name: str, remote_decision: bool | None) -> bool:
        tokens = self._tokens
        try:
            free_at = tokens.popleft()
        except IndexError:  # others hold them all
            return False
        now = self._monotonic_ns()
        if free_at > now:
            tokens.appendleft(free_at)
            return False
        tokens.append(now + self._period)
        return True


class ParentBased(msgspec.Struct, frozen=True):
    """Follow the parent's decision; where there is no parent, ask `root`. The others say what following means.

    A parent is remote where it is a caller's span. A local one is asked about, for runs inside runs, only where it is not
    simply followed. A threshold in the `tracestate` goes on where it agrees with the decision that is followed.
    """

    root: Sampler = AlwaysOn()
    remote_parent_sampled: Sampler = AlwaysOn()
    remote_parent_not_sampled: Sampler = AlwaysOff()
    local_parent_sampled: Sampler = AlwaysOn()
    local_parent_not_sampled: Sampler = AlwaysOff()

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if not callable(getattr(getattr(self, name), "is_sampled", None)):
                raise ConfigurationError(f"ParentBased({name}) is a sampler, not {getattr(self, name)!r:.80}")

    @property
    def asks_inside(self) -> bool:
        return not (
            isinstance(self.local_parent_sampled, AlwaysOn) and isinstance(self.local_parent_not_sampled, AlwaysOff)
        )

    def for_tracer(self, monotonic_ns: Callable[[], int]) -> ParentBased:
        return ParentBased(*(for_tracer(getattr(self, name), monotonic_ns) for name in self.__struct_fields__))

    def is_sampled(self, trace_id: bytes, name: str, remote_decision: bool | None) -> bool | Sampling:
        sampler = self.root
        if remote_decision is not None:
            sampler = self.remote_parent_sampled if remote_decision else self.remote_parent_not_sampled
        return sampler.is_sampled(trace_id, name, remote_decision)

    def decide(self, request: SamplingRequest) -> Sampling:
        parent = request.parent
        if parent is None:
            return ask(self.root, request)
        if request.is_remote:
            sampler = self.remote_parent_sampled if parent.is_sampled else self.remote_parent_not_sampled
        else:
            sampler = self.local_parent_sampled if parent.is_sampled else self.local_parent_not_sampled
        follows = AlwaysOn if parent.is_sampled else AlwaysOff
        return _followed(request.trace_id, parent) if isinstance(sampler, follows) else ask(sampler, request)


def _followed(trace_id: bytes, parent: RemoteSpan) -> Sampling:
    """The parent's decision; a threshold that contradicts it is taken out."""
    threshold = parse_chances(parent.tracestate).threshold if "ot=" in parent.tracestate else None
    if threshold is None:
        return _YES if parent.is_sampled else _NO
    agrees = (_randomness(trace_id, parent.tracestate) >= threshold) is parent.is_sampled
    return Sampling(
        is_sampled=parent.is_sampled, tracestate=None if agrees else with_threshold(parent.tracestate, None)
    )


def _randomness(trace_id: bytes, tracestate: str) -> int:
    explicit = parse_chances(tracestate).randomness if "ot=" in tracestate else None
    return int.from_bytes(trace_id[9:], "big") if explicit is None else explicit


def _check_ratio(name: str, ratio: object) -> None:
    if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 <= ratio <= 1:
        raise ConfigurationError(f"{name}(ratio) is between 0 and 1, not {ratio!r}")


ALWAYS_ON: Final = AlwaysOn()
ALWAYS_OFF: Final = AlwaysOff()
_YES: Final = Sampling(is_sampled=True)
_NO: Final = Sampling(is_sampled=False)
