"""Where spans wait: segments, cursors, bounds. Knows nothing of who makes records or who reads them."""

from ._log import SpanLog
from ._policy import DropNewest, DropOldest, WaitForRoom, WhenFull, parse_when_full
from ._readable import ReadableLog

__all__ = ["DropNewest", "DropOldest", "ReadableLog", "SpanLog", "WaitForRoom", "WhenFull", "parse_when_full"]
