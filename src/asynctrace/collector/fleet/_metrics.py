"""What a program of the fleet counted, in the text format of Prometheus, version 0.0.4.

Promises: a counter only grows; names and labels are of a fixed set; asking never fails: what cannot be reached is said to be
`up 0`, and the rest is there.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Final

import msgspec

from ..._errors import StreamError
from ...stream import Depth, Stream

__all__ = ["Tally", "as_counters", "sample", "stream_text", "warning_of"]

PATIENCE: Final = 2.0
"""Seconds for asking the stream."""
GAUGES: Final = ("entries", "bytes", "pending", "dead", "oldest_seconds")


class Tally:
    """Counters under one prefix, each with at most one label."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._counts: Counter[tuple[str, str, str]] = Counter()

    def add(self, name: str, count: int = 1, **label: str) -> None:
        """So many more."""
        [(key, value)] = label.items() or [("", "")]
        self._counts[name, key, value] += count

    def total(self, name: str) -> int:
        """Of all labels."""
        return sum(count for (each, _, _), count in self._counts.items() if each == name)

    def text(self) -> str:
        """All of them."""
        return "".join(f"{line}\n" for line in self._lines())

    def _lines(self) -> Iterator[str]:
        before = ""
        for (name, key, value), count in sorted(self._counts.items()):
            full = f"{self._prefix}_{name}_total"
            if full != before:
                yield f"# TYPE {full} counter"
                before = full
            yield f'{full}{{{key}="{value}"}} {count}' if key else f"{full} {count}"


def as_counters(prefix: str, statistics: msgspec.Struct) -> str:
    """The numbers of `statistics`, which only grow."""
    return "".join(sample(f"{prefix}_{name}_total", "counter", value) for name, value in _numbers(statistics).items())


def warning_of(stream: Stream) -> str:
    """What may cost messages though the stream works; nothing where nothing is known."""
    return str(getattr(stream, "warning", ""))


async def stream_text(stream: Stream) -> str:
    """What this side of the stream has seen, and what is in it now."""
    text = as_counters("asynctrace_stream", stream.statistics())
    text += sample("asynctrace_stream_degraded", "gauge", bool(warning_of(stream)))
    try:
        depth = await asyncio.wait_for(stream.depth(), PATIENCE)
    except (StreamError, TimeoutError):
        return text + sample("asynctrace_stream_up", "gauge", 0)
    return text + sample("asynctrace_stream_up", "gauge", 1) + _depth_text(depth)


def _depth_text(depth: Depth) -> str:
    now = "".join(sample(f"asynctrace_stream_{name}", "gauge", getattr(depth, name)) for name in GAUGES)
    return now + sample("asynctrace_stream_vanished", "gauge", depth.lost)


def _numbers(statistics: msgspec.Struct) -> Mapping[str, float]:
    return {name: value for name, value in msgspec.structs.asdict(statistics).items() if isinstance(value, int | float)}


def sample(name: str, kind: str, value: float) -> str:
    """One number without labels."""
    return f"# TYPE {name} {kind}\n{name} {value + 0}\n"
