"""The spans of a test, in a tracer of its own.

    async with capture_spans() as captured:
        async with captured.tracer.trace("checkout"):
            ...
        await captured.flush()
        assert captured.find("checkout").ending == "ok"

Promises:

- Every capture has its own tracer, in memory only, with one `MemoryExporter`; two captures share nothing, so
  tests run in parallel. Nothing global changes unless `default=True` asks for it, and then only
  until the block ends.
- What is read is complete: without a running event loop reading flushes first; inside one, reading while
  spans are still on their way raises `MisuseError` instead of showing part of the truth.
- After the block everything that ended has arrived; what was left open has the ending `incomplete`.
"""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .._contracts import Receipt, Span
from .._errors import MisuseError
from ._trees import tree_text

if TYPE_CHECKING:
    from ..runtime import Tracer

__all__ = ["CapturedSpans", "capture_spans"]

_PATIENCE = 0.0
"""Seconds a span left open may still take at the end of the block: a test that forgot one should not wait for
it."""


def capture_spans(*, default: bool = False, service: str = "test", **options: Any) -> CapturedSpans:
    """A block, async or plain, that yields the `CapturedSpans` of a tracer of its own.

    With `default=True` the module's functions (`asynctrace.trace()`, …) mean this tracer until the block
    ends, in the whole process. `options` are those of `Tracer`, for example `clock=ManualClock(),
    ids=SeededIds()`.
    """
    return CapturedSpans(default=default, service=service, options=options)


class CapturedSpans:
    """What a test traced. Made by `capture_spans()` and by the pytest fixture `spans`."""

    def __init__(self, *, default: bool, service: str, options: dict[str, Any]) -> None:
        from ..exporters import MemoryExporter
        from ..runtime import Tracer

        self._memory = MemoryExporter()
        self._tracer = Tracer(service=service, exporters=[self._memory], journal=False, **options)
        self._default = default
        self._restore: Tracer | None = None

    async def __aenter__(self) -> CapturedSpans:
        await self._tracer.start()
        self._become_default()
        return self

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._restore_default()
        await self._tracer.flush()
        await self._tracer.shutdown(timeout=_PATIENCE)

    def __enter__(self) -> CapturedSpans:
        self._tracer.start_sync()
        self._become_default()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._restore_default()
        self._tracer.flush_sync()
        self._tracer.shutdown_sync(timeout=_PATIENCE)

    @property
    def tracer(self) -> Tracer:
        """The tracer whose spans are captured."""
        return self._tracer

    async def flush(self) -> Receipt:
        """Wait until every span that has ended can be read here."""
        return await self._tracer.flush()

    @property
    def spans(self) -> tuple[Span, ...]:
        """Every span that has ended, children before their parents.

        Raises `MisuseError` inside a running event loop while some are still on their way: `await
        captured.flush()`.
        """
        self._be_complete()
        return tuple(self._memory.spans)

    @property
    def by_name(self) -> dict[str, list[Span]]:
        """The spans by their names, those of one name in the order of arrival."""
        grouped: dict[str, list[Span]] = {}
        for span in self.spans:
            grouped.setdefault(span.name, []).append(span)
        return grouped

    def find(self, name: str) -> Span:
        """The one span of that name. Raises `LookupError`, with a picture, when there is none or more than
        one."""
        found = [span for span in self.spans if span.name == name]
        if len(found) != 1:
            raise LookupError(f"{len(found)} spans are named {name!r}, not one, among:\n{self.tree()}")
        return found[0]

    def tree(self, *, attributes: tuple[str, ...] = (), durations: bool = False) -> str:
        """The spans as text, see `tree_text()`."""
        return tree_text(self.spans, attributes=attributes, durations=durations)

    def _be_complete(self) -> None:
        if not self._tracer.receipt().pending:
            return
        if _in_running_loop():
            raise MisuseError("spans are still on their way; before reading them: await captured.flush()")
        self._tracer.flush_sync()

    def _become_default(self) -> None:
        from ..runtime import set_default

        if self._default:
            self._restore = set_default(self._tracer)

    def _restore_default(self) -> None:
        from ..runtime import set_default

        if self._default:
            set_default(self._restore)


def _in_running_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
