"""Which shards have a batch: all of them are asked, a few dozen in a pipeline, and those that have one are taken in turn.

Promises: a shard whose server does not answer keeps nobody from the others; where no shard could be asked at all, whoever
looks is told why.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from typing import Final

from .._diagnostics import Diagnostics
from .._errors import StreamError
from ._router import Router
from ._scripts import LOOK
from ._slots import ShardKeys

__all__ = ["Search"]

_PATIENCE: Final = 0.25
"""Seconds after which answers that are there are looked at, whatever else is still to come."""
_PAUSES: Final = (0.02, 0.05, 0.1, 0.2)
"""Seconds between two rounds that found nothing; the last one for good."""


class Search:
    """Of one worker. `batch`: entries, bytes, milliseconds that make a batch."""

    def __init__(self, router: Router, batch: tuple[int, int, int], diagnostics: Diagnostics) -> None:
        self._router = router
        self._batch = batch
        self._diagnostics = diagnostics
        self._ready: deque[ShardKeys] = deque()
        self._asked: dict[int, asyncio.Task[bool]] = {}
        self._failed: dict[int, StreamError] = {}
        self._fruitless = 0
        """Rounds since a batch was claimed."""
        self._asking = asyncio.Lock()

    async def next_ready(self, shards: Sequence[ShardKeys], end: float) -> ShardKeys | None:
        """A shard that had a batch a moment ago; None when there is none until `end`, by the loop's clock."""
        rounds = 0
        while True:
            async with self._asking:
                if self._ready:
                    return self._ready.popleft()
                left = end - asyncio.get_running_loop().time()
                if rounds and left <= 0:
                    return None
                if self._fruitless:
                    await asyncio.sleep(max(0.0, min(left, _PAUSES[min(self._fruitless, len(_PAUSES)) - 1])))
                await self._ask(shards)
                self._fruitless += 1
                rounds += 1

    def came_to_something(self) -> None:
        """A batch was claimed: there may be more at once."""
        self._fruitless = 0

    async def aclose(self) -> None:
        tasks = list(self._asked.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, shards: Sequence[ShardKeys]) -> None:
        loop = asyncio.get_running_loop()
        for keys in random.sample(shards, len(shards)):
            if keys.shard not in self._asked:
                self._asked[keys.shard] = loop.create_task(self._has_batch(keys))
        await asyncio.wait(self._asked.values(), timeout=_PATIENCE)
        self._collect(shards)
        if len(self._failed) == len(shards):
            raise self._failed.popitem()[1]

    def _collect(self, shards: Sequence[ShardKeys]) -> None:
        for number in [number for number, task in self._asked.items() if task.done()]:
            try:
                if self._asked.pop(number).result():
                    self._ready.append(shards[number])
                self._failed.pop(number, None)
            except StreamError as error:
                self._failed[number] = error
                self._diagnostics.warning("stream.shard_unreadable", reason=str(error))

    async def _has_batch(self, keys: ShardKeys) -> bool:
        return bool(await self._router.call(keys.slot, LOOK.command(keys, *self._batch)))
