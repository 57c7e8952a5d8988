"""What a lane needs of a span log: that of a living process, or the journal of a dead one."""

from __future__ import annotations

from typing import Protocol

__all__ = ["ReadableLog"]


class ReadableLog(Protocol):
    """Numbered records, cut in runs from anywhere and freed from below. See `SpanLog` for what each one promises."""

    @property
    def is_scoped(self) -> bool:
        """Whether a record may name a scope of its own."""
        ...

    @property
    def gap_reason(self) -> str:
        """Why records are missing that a reader had not settled."""
        ...

    @property
    def first(self) -> int: ...

    @property
    def appended(self) -> int: ...

    @property
    def wake_at(self) -> int: ...

    @wake_at.setter
    def wake_at(self, number: int) -> None: ...

    def totals(self) -> tuple[int, dict[str, int]]: ...

    def next_present(self, number: int) -> int:
        """The next record that is held, from `number` on; `appended` when there is none."""
        ...

    def read(self, number: int, max_records: int, max_bytes: int) -> tuple[list[memoryview], int]: ...

    def bytes_above(self, number: int) -> int: ...

    def release(self, settled: int, furthest: int | None = None) -> None: ...
