"""The store beyond one machine: a database of ClickHouse, for any number of processes that write and read.

Promises, beside those of every store

- Any number of processes write: nothing here is held by one.
- The tables are made, and brought up to date, by whoever writes first (`_migrate`).
- `add()` under the same token, from whichever process, adds the same rows once.
- Bounds are kept to the day of arrival: what is beyond them goes with the whole of its day (UTC).
"""

from __future__ import annotations

import time as _time
from collections.abc import Callable, Sequence
from typing import Final

from .._keys import RequestKey
from .._rows import Received
from ..store import Bounds, Swept
from ..store._ids import identity
from ._client import Client
from ._keeping import Keeping
from ._migrate import bring_up_to_date
from ._reading import ClickHouseReader
from ._roll import Rolling
from ._settings import advice
from ._writing import PATIENCE, Writing

__all__ = ["TIMEOUT", "ClickHouseStore"]

TIMEOUT: Final = 30.0
"""Seconds for one statement."""


class ClickHouseStore(ClickHouseReader):
    """The store at `url`: `clickhouse://user:password@host:8123/database` (`clickhouses://` with TLS; `ca_file` holds the
    certificates to trust there). `bounds` say what it keeps, `timeout` is for one statement and `patience` for repeating an
    insert while ClickHouse is away, both seconds. `time` gives seconds since the Unix epoch.
    `StoreError` for a URL that is none, a server that cannot be used, a database of a newer version or of another program.
    """

    def __init__(
        self,
        url: str,
        *,
        bounds: Bounds | None = None,
        timeout: float = TIMEOUT,
        patience: float = PATIENCE,
        ca_file: str | None = None,
        time: Callable[[], float] = _time.time,
    ) -> None:
        self.bounds = bounds or Bounds()
        self._time = time
        client = Client(url, timeout=timeout, ca_file=ca_file)
        try:
            bring_up_to_date(client)
            self._writing = Writing(client, time=time, patience=patience)
        except BaseException:
            client.close()
            raise
        super().__init__(client)
        self._keeping = Keeping(client)
        self._rolling = Rolling(client)

    def advice(self) -> list[str]:
        """What the server's administrator should look at: one line each."""
        return advice(self._client)

    def add(self, received: Sequence[Received], *, token: str = "") -> None:
        """Take over rows and logs, then note the keys they came under. What came under a key that is known is passed over."""
        self._writing.add(received, token)

    def has(self, key: RequestKey) -> bool:
        """Whether all records of `key` were added before, under it or under others of the same log."""
        return self._writing.has(key)

    def pin(self, trace_id: str) -> bool:
        """Keep a trace beyond the bounds."""
        return self._keeping.pin(identity(trace_id), self._now_ns())

    def unpin(self, trace_id: str) -> bool:
        """Let the bounds hold for it again."""
        return self._keeping.unpin(identity(trace_id), self._now_ns())

    def delete(self, trace_id: str) -> bool:
        """Take a trace away, from all tables and the pins."""
        return self._keeping.delete(identity(trace_id), self._now_ns())

    def sweep(self) -> Swept:
        """Drop the days that are beyond the bounds; sum up what has become quiet."""
        swept = self._keeping.sweep(self.bounds, self._now_ns())
        self._rolling.roll(self._now_ns())
        return swept

    def close(self) -> None:
        """Give the connections back. Idempotent."""
        self._client.close()

    def _now_ns(self) -> int:
        return int(self._time() * 1e9)
