"""Where a lane writes down what must outlive its process. The order of the calls is the lane's promise:

open_window() ─▶ the bytes leave ─▶ answered ─▶ add_run() for what was lost ─▶ move_cursor()
"""

from __future__ import annotations

from typing import Literal, Protocol

__all__ = ["LaneStore", "StoredLane"]


class LaneStore(Protocol):
    """One lane of a journal, while its process lives."""

    @property
    def cursor(self) -> int:
        """Everything below it is settled."""
        ...

    def open_window(self, first: int, count: int) -> bool:
        """These records travel together, under a key of these two numbers. False: there is no room, so they must wait."""
        ...

    def add_run(self, first: int, count: int, kind: Literal["rejected", "dropped"], reason: str) -> None:
        """Of these records none was delivered."""
        ...

    def move_cursor(self, number: int) -> None:
        """Everything below `number` is settled."""
        ...


class StoredLane(LaneStore, Protocol):
    """One lane of a dead process: what it wrote down, and where whoever goes on with it writes."""

    def windows(self) -> list[tuple[int, int]]:
        """(first, count) of what was being sent."""
        ...

    def runs_above(self) -> list[tuple[int, int, Literal["rejected", "dropped"], str]]:
        """(first, count, kind, reason) above the cursor."""
        ...

    def books(self) -> tuple[dict[str, int], dict[str, int]]:
        """(rejected, dropped) below the cursor, by reason."""
        ...
