"""What was read of one request so far, how much it was, and what of it could not be taken.

Promises: a request of more than `MOST_PARTS` parts is refused while it is read (`TooMany`), not when it is there; what is
read before it is counted is some hundred spans.
"""

from __future__ import annotations

from typing import Final

from .._rows import LogRow, Origin, SpanRow

__all__ = ["MOST_PARTS", "Intake", "TooMany"]

MOST_PARTS: Final = 1_000_000
"""Spans, attributes, events, links and log records of one request, and its resources, once for each scope."""


class TooMany(Exception):
    """The request holds more parts than one may hold."""

    def __init__(self) -> None:
        super().__init__(f"the request holds more than {MOST_PARTS:,} spans and attributes: send fewer at once")


class Intake:
    """Grows while a request is read."""

    __slots__ = ("ignored", "logs", "notices", "origins", "parts", "reason", "rejected", "resource", "rows")

    def __init__(self) -> None:
        self.origins: list[Origin] = []
        self.rows: list[SpanRow] = []
        self.logs: list[LogRow] = []
        self.rejected = 0
        self.reason = ""
        """Why the first of the rejected ones was rejected."""
        self.notices = 0
        """Rows about spans that are still open."""
        self.ignored = 0
        """Log records that belong to no trace."""
        self.parts = 0
        self.resource: tuple[bytes, str, tuple[bytes, ...]] | None = None
        """The last one that was read, with its service and its search tokens: the next scope has it, too."""

    def count(self, parts: int) -> None:
        """So many parts more. `TooMany`."""
        self.parts += parts
        if self.parts > MOST_PARTS:
            raise TooMany

    def reject(self, reason: str) -> None:
        """One span or log record that cannot be taken. `TooMany`."""
        self.count(1)
        self.rejected += 1
        self.reason = self.reason or reason
