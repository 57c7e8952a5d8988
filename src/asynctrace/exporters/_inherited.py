"""What a forked child has of its parent's connections, and how it lets go of them.

Promises: the far side hears nothing of it, and the parent's event loop neither.
"""

from __future__ import annotations

import socket

__all__ = ["close_copy", "keep"]

_inherited: list[object] = []
"""What must not be collected in the child: a transport that is collected says good-bye, and takes its socket out of the
parent's selector, which the two share."""


def keep(inherited: object) -> None:
    """Until the child ends."""
    _inherited.append(inherited)


def close_copy(transport: object) -> None:
    """Close the descriptor. A loop that is not asyncio's own shows none that could be closed behind its back; the copy
    then stays open, unused, until the child ends. A loop that is closed has no selector to be taken out of."""
    protocol = getattr(transport, "_ssl_protocol", None)
    if protocol is not None:
        transport = getattr(protocol, "_transport", None)
    held = getattr(transport, "_sock", None)
    if isinstance(held, socket.socket):
        held.close()
        transport._sock = None  # type: ignore[attr-defined]  # it is told to nobody as unclosed
        transport._closing = True  # type: ignore[attr-defined]
