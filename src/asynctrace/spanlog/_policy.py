"""What happens to a record that ends while the span log is full; each variant says what it costs.

DropNewest      the new record is refused: constant cost, the oldest story stays whole      (the default)
DropOldest      the oldest segment is evicted: constant cost, the newest story stays whole
WaitForRoom     the ending waits, up to `timeout`: nothing is lost while the far side keeps up on average
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from .._errors import ConfigurationError

__all__ = ["DropNewest", "DropOldest", "WaitForRoom", "WhenFull", "parse_when_full"]


class DropNewest(msgspec.Struct, frozen=True):
    """Refuse the new record, counted `refused`. Where several lanes read the log and one lags behind, what another has
    settled is evicted for it instead: a lane that hangs does not cost the others the newest records."""


class DropOldest(msgspec.Struct, frozen=True):
    """Evict the oldest segment, counted `evicted` in every lane that had not settled it."""


class WaitForRoom(msgspec.Struct, frozen=True):
    """Let the ending wait up to `timeout` seconds for room, then refuse the record, counted `refused`.

    Only `async with` blocks and threads without a running loop wait. A synchronous ending inside a running loop
    never does: the lanes that make room run on that loop.
    """

    timeout: float = 5.0

    def __post_init__(self) -> None:
        if not self.timeout >= 0:
            raise ConfigurationError(f"WaitForRoom(timeout=…) is seconds, zero or more, not {self.timeout!r}")


WhenFull: TypeAlias = DropNewest | DropOldest | WaitForRoom

_BY_NAME: dict[str, WhenFull] = {
    "drop_newest": DropNewest(),
    "drop_oldest": DropOldest(),
    "wait": WaitForRoom(),
}


def parse_when_full(value: object) -> WhenFull:
    """The policy that `Tracer(when_full=…)` names. Raises `ConfigurationError`."""
    if isinstance(value, DropNewest | DropOldest | WaitForRoom):
        return value
    policy = _BY_NAME.get(value) if isinstance(value, str) else None
    if policy is None:
        raise ConfigurationError(f"when_full is one of {sorted(_BY_NAME)} or WaitForRoom(timeout=…), not {value!r}")
    return policy
