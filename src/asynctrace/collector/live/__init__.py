"""What is happening now: open spans, and who wants to hear of what was committed.

_live   the whole        _open_spans   what is open, what is lost        _hub   who listens
_snapshot   for the collector that comes after this one
"""

from __future__ import annotations

from ._hub import Hub, Listener, News
from ._live import Live
from ._open_spans import LOST_AFTER, OpenSpan, OpenSpans, Order
from ._snapshot import SNAPSHOT_FILE, read_snapshot

__all__ = [
    "Live",
    "OpenSpans",
    "OpenSpan",
    "Order",
    "LOST_AFTER",
    "SNAPSHOT_FILE",
    "read_snapshot",
    "Hub",
    "Listener",
    "News",
]
