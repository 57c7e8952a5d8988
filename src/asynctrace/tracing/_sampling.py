"""Who is recorded: the decision is made once, at the first span of a trace, and its children follow it.

    ALWAYS_ON        every trace                                          (the default)
    ALWAYS_OFF       none; the cheapest way to switch tracing off
    TraceIdRatio     a share of all traces, chosen by trace id, so that every service chooses the same ones
    ParentBased      as the remote caller decided; its `root` sampler where there is none

Source: OpenTelemetry specification, "Built-in samplers".
"""

from __future__ import annotations

from typing import Final, Protocol

import msgspec

from .._errors import ConfigurationError

__all__ = ["ALWAYS_OFF", "ALWAYS_ON", "AlwaysOff", "AlwaysOn", "ParentBased", "Sampler", "TraceIdRatio"]


class Sampler(Protocol):
    """Decides for a trace. Must not block."""

    def is_sampled(self, trace_id: bytes, name: str, remote_decision: bool | None) -> bool:
        """`trace_id` has 16 bytes; `remote_decision` is the caller's, or None where there is no caller."""
        ...


class AlwaysOn(msgspec.Struct, frozen=True):
    """Record everything."""

    def is_sampled(self, trace_id: bytes, name: str, remote_decision: bool | None) -> bool:
        return True


class AlwaysOff(msgspec.Struct, frozen=True):
    """Record nothing."""

    def is_sampled(self, trace_id: bytes, name: str, remote_decision: bool | None) -> bool:
        return False


class TraceIdRatio(msgspec.Struct, frozen=True):
    """Record the share `ratio` (0 to 1) of traces: those whose id's last 8 bytes, as a number, lie below it."""

    ratio: float

    def __post_init__(self) -> None:
        if isinstance(self.ratio, bool) or not isinstance(self.ratio, int | float) or not 0 <= self.ratio <= 1:
            raise ConfigurationError(f"TraceIdRatio(ratio) is between 0 and 1, not {self.ratio!r}")

    def is_sampled(self, trace_id: bytes, name: str, remote_decision: bool | None) -> bool:
        return int.from_bytes(trace_id[8:], "big") < round(self.ratio * (1 << 64))


class ParentBased(msgspec.Struct, frozen=True):
    """Follow the remote caller's decision; where there is no caller, ask `root`."""

    root: AlwaysOn | AlwaysOff | TraceIdRatio = AlwaysOn()

    def is_sampled(self, trace_id: bytes, name: str, remote_decision: bool | None) -> bool:
        if remote_decision is not None:
            return remote_decision
        return self.root.is_sampled(trace_id, name, None)


ALWAYS_ON: Final = AlwaysOn()
ALWAYS_OFF: Final = AlwaysOff()
