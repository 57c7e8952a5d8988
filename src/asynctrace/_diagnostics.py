"""What asynctrace says about itself: structlog events, each at most once a minute, quiet by default.

A program that configured structlog gets the events through its own configuration, from a logger that carries
`logger="asynctrace"`. In any other program only warnings and errors are printed, to stderr; stdout belongs to the
program. Event names follow the map: `spanlog.full`, `delivery.retry`, `runtime.shutdown_incomplete`.

structlog is loaded when there is something to say, never by `import asynctrace`.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

__all__ = ["Diagnostics", "loading"]

_INTERVAL = 60.0
"""Seconds between two lines for one event; what is held back in between is counted and told by the next line."""

loading = threading.RLock()
"""Held while structlog is imported: a fork waits for that, or its child could never import it."""


class Diagnostics:
    """Never raises, whatever the program's logging does. `monotonic_ns` is the clock for the interval."""

    def __init__(self, monotonic_ns: Callable[[], int]) -> None:
        self._monotonic_ns = monotonic_ns
        self._lock = threading.Lock()
        self._spoken: dict[str, int] = {}
        self._held_back: dict[str, int] = {}

    def debug(self, event: str, **fields: object) -> None:
        """Shown only by programs that configured structlog to show it. Not limited."""
        if "structlog" in sys.modules:
            self._emit("debug", event, fields)

    def info(self, event: str, **fields: object) -> None:
        """A turn for the better."""
        self._limited("info", event, fields)

    def warning(self, event: str, **fields: object) -> None:
        """Something was lost, or may be."""
        self._limited("warning", event, fields)

    def error(self, event: str, **fields: object) -> None:
        """Somebody must change a setting, or asynctrace has a defect."""
        self._limited("error", event, fields)

    def after_fork_in_child(self) -> None:
        """What was said, the parent has said; its other threads, one of which may have been speaking, are not here."""
        self._lock = threading.Lock()
        self._spoken, self._held_back = {}, {}

    def _limited(self, level: str, event: str, fields: dict[str, Any]) -> None:
        key = f"{event} {fields.get('lane', '')} {fields.get('reason', '')}"
        now = self._monotonic_ns()
        # A finaliser may interrupt a line of its own thread; that one is counted, not waited for.
        if not self._lock.acquire(blocking=False):
            return
        try:
            last = self._spoken.get(key)
            if last is not None and now - last < _INTERVAL * 1e9:
                self._held_back[key] = self._held_back.get(key, 0) + 1
                return
            self._spoken[key] = now
            held_back = self._held_back.pop(key, 0)
        finally:
            self._lock.release()
        if held_back:
            fields["held_back"] = held_back
        self._emit(level, event, fields)

    def _emit(self, level: str, event: str, fields: dict[str, Any]) -> None:
        with suppress(Exception):  # a program's logging must not reach its traced code through us
            getattr(_logger(), level)(event, **fields)


def _logger() -> Any:
    with loading:
        import structlog

    if structlog.is_configured():
        return structlog.get_logger("asynctrace").bind(logger="asynctrace")
    return structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr),
        processors=[structlog.processors.add_log_level, structlog.dev.ConsoleRenderer(colors=False)],
        wrapper_class=structlog.make_filtering_bound_logger(30),
    ).bind(logger="asynctrace")
