"""Where an ingest node puts requests: into the stream, or into the spill while the stream is away.

    take ─▶ stream.append ── away ─▶ spill.append ── full ─▶ 503
               └── full ─▶ 429          └─ look_after: once the stream answers ─▶ stream.append

Promises:

- What `take()` returned for is in the stream, confirmed as the stream confirms, or synced to the disk of this machine.
- While the stream is away no request waits for it: each goes to the spill at once, or is refused where there is none.
- What was spilled, by this process or a dead one, goes to the stream by itself when that is back. Nobody has to send
  something for that to be noticed.
- A stream that has no room refuses: its senders wait, and nothing is written elsewhere.
- A stream that takes something, or says that it is full, is back: requests go there again beside what was spilled, so that a
  node that receives faster than it brings back does not spill until there is no room.
"""

from __future__ import annotations

import asyncio
import time
from typing import Final

from ..._diagnostics import Diagnostics
from ..._errors import MessageTooLarge, StreamError, StreamFull
from ...stream import LocalSpill, Message, Stream
from .._rows import Received
from ..receiving import Behind, Refused, Sent
from ._metrics import Tally
from ._requests import message_of

__all__ = ["StreamSink"]

PAUSE: Final = 2.0
"""Seconds between two attempts at a stream that is away."""
LOOK_EVERY: Final = 1.0
BESIDE_THE_LOOP: Final = 32 * 1024
"""Bytes of a body from which it is compressed in a thread: below, the way there costs more than the work."""


class StreamSink:
    """Belongs to one event loop. `spill` None: what cannot go to the stream is refused."""

    def __init__(self, stream: Stream, spill: LocalSpill | None, tally: Tally) -> None:
        self._stream, self._spill, self._tally = stream, spill, tally
        self._diagnostics = Diagnostics(time.monotonic_ns)
        self._away = ""
        """Why the stream cannot be used, while it cannot."""
        self._is_spill_full = False

    @property
    def trouble(self) -> str:
        """Why requests cannot be taken now; nothing while they can."""
        has_room = self._spill is not None and not self._is_spill_full
        return "" if has_room else self._away

    async def take(self, received: Received, sent: Sent) -> None:
        """Keep what a store would keep of it. `Behind`, `Refused`."""
        if len(sent.body) < BESIDE_THE_LOOP:
            message = message_of(received, sent)
        else:
            message = await asyncio.to_thread(message_of, received, sent)
        if message is not None and not await self._is_streamed(message):
            await self._spilled(message)

    async def look_after(self) -> None:
        """Notice that the stream is back, and bring it what was spilled: for ever."""
        while True:
            try:
                await self._bring_spilled()
                await asyncio.sleep(LOOK_EVERY)
            except StreamFull as full:
                self._is_back()
                await asyncio.sleep(max(full.retry_after, LOOK_EVERY))
            except StreamError as error:
                self._went_away(error)
                await asyncio.sleep(PAUSE)
            except Exception as error:  # noqa: BLE001  (whatever it is, what was spilled is tried again)
                self._diagnostics.error("collector.spill_stuck", reason=repr(error))
                await asyncio.sleep(PAUSE)

    async def _bring_spilled(self) -> None:
        spill = self._spill
        if spill is not None and spill.stored_bytes and await spill.drain(self._stream, on_taken=self._is_back):
            self._is_spill_full = False
        elif self._away:
            await self._stream.depth()
            self._is_back()

    async def _is_streamed(self, message: Message) -> bool:
        if self._away:
            return False
        try:
            await self._stream.append(message)
        except StreamFull as full:
            self._tally.add("refused", reason="full")
            raise Behind(str(full), retry_after=full.retry_after, status=429) from None
        except MessageTooLarge as error:
            self._tally.add("refused", reason="too_large")
            raise Refused(413, str(error)) from None
        except StreamError as error:
            self._went_away(error)
            return False
        return True

    async def _spilled(self, message: Message) -> None:
        if self._spill is not None and await self._spill.append(message):
            self._tally.add("spilled")
            self._is_spill_full = False
            return
        self._is_spill_full = self._spill is not None
        self._tally.add("refused", reason="spill_full" if self._spill is not None else "away")
        raise Behind(f"the stream is away: {self._away}", retry_after=PAUSE)

    def _went_away(self, error: StreamError) -> None:
        self._away = str(error)
        self._diagnostics.error("collector.stream_away", reason=self._away)

    def _is_back(self) -> None:
        if self._away:
            self._away = ""
            self._diagnostics.info("collector.stream_back")
