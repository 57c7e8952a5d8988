"""Adding to a ClickHouse store.

    requests ─▶ which keys are known? ─▶ the others as one block of spans, one of logs ─▶ their keys

Each of the three inserts has a deduplication token made from that of the whole: repeated, it adds what is missing and
nothing twice, in the tables that views fill as well. So an insert whose answer was lost is repeated here, and one whose
process died by the process that gets the same token.

Promises, beside those of every store

- `add()` returns when ClickHouse has all of it. When it raises `ServerAway`, some of it may be there: adding the same under
  the same token makes it whole.
- Spans that lists and traces read come in one part for each table: seen as a whole, or not yet.
"""

from __future__ import annotations

import secrets
import threading
import time as _time
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from .._keys import RequestKey
from .._rows import Received
from ._blocks import Blocks
from ._client import Client, Settings
from ._compression import Compress, best_compression
from ._errors import ServerAway
from ._requests import COLUMNS, encode_keys, known_among
from ._settings import insert_settings

__all__ = ["PATIENCE", "Writing"]

PATIENCE: Final = 20.0
"""Seconds for which an insert is repeated before the caller hears of it."""
FIRST_WAIT: Final = 0.1
LONGEST_WAIT: Final = 2.0

T = TypeVar("T")


class Writing:
    """The writing half of the store at `client`, whose tables are there. Safe from any thread."""

    def __init__(self, client: Client, *, time: Callable[[], float] = _time.time, patience: float = PATIENCE) -> None:
        self._client = client
        self._time = time
        self._patience = patience
        self._lock = threading.Lock()
        self._last = 0
        self._compress: Compress = best_compression()
        self._settings = insert_settings(client)

    def add(self, received: Sequence[Received], token: str = "") -> None:
        """Insert what is new. `token`: the same for the same requests, from whichever process; none: nobody repeats them."""
        token = token or secrets.token_hex(16)
        patient = _Patient(self._patience)
        new = patient(lambda: self._new_among(received))
        blocks = Blocks(new)
        if blocks.spans:
            self._insert("spans_in", blocks.span_block(self._arrive(blocks.spans)), f"{token} spans", patient)
        if blocks.logs:
            self._insert("logs_in", blocks.log_block(self._arrive(blocks.logs)), f"{token} logs", patient)
        keys = [each.key for each in new if each.key is not None]
        if keys:
            self._insert(f"requests ({COLUMNS})", encode_keys(keys), f"{token} keys", patient)

    def has(self, key: RequestKey) -> bool:
        """Whether all records of `key` were added before."""
        return key in known_among(self._client, [key])

    def _new_among(self, received: Sequence[Received]) -> list[Received]:
        keys = [each.key for each in received if each.key is not None]
        known = known_among(self._client, keys) if keys else set()
        return [each for each in received if each.key is None or each.key not in known]

    def _arrive(self, rows: int) -> int:
        """The time of the first of `rows` rows: after every row before, a nanosecond for each."""
        with self._lock:
            first = max(int(self._time() * 1e9), self._last + 1)
            self._last = first + rows - 1
            return first

    def _insert(self, table: str, block: bytes, token: str, patient: _Patient) -> None:
        statement = f"INSERT INTO {table} FORMAT Native"
        body, encoding = self._compress(block), self._compress.encoding
        settings: Settings = {**self._settings, "insert_deduplication_token": token}
        patient(lambda: self._client.insert(statement, body, encoding=encoding, settings=settings))


class _Patient:
    """Repeats a call while ClickHouse is away, for so many seconds in all."""

    def __init__(self, seconds: float) -> None:
        self._deadline = _time.monotonic() + seconds

    def __call__(self, call: Callable[[], T]) -> T:
        wait = FIRST_WAIT
        while True:
            try:
                return call()
            except ServerAway:
                if _time.monotonic() + wait >= self._deadline:
                    raise
            _time.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)
