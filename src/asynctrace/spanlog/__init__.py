"""Where spans wait: segments, cursors, bounds. Knows nothing of who makes records or who reads them."""

from ._log import SpanLog
from ._policy import DropNewest, DropOldest, WaitForRoom, WhenFull, parse_when_full

__all__ = ["DropNewest", "DropOldest", "SpanLog", "WaitForRoom", "WhenFull", "parse_when_full"]
