"""Calls to one server, several in one pipeline, and one `WAIT` for all of them.

    call ─┐
    call ─┼─▶ waiting ─▶ [call call … call WAIT]  one connection, at most `_ABREAST` of these at once
    call ─┘                                       answers in order

Waiting for a replica costs a round trip to it, however much is confirmed by it; so calls that come while others are under
way go together. `WAIT` confirms what was written over its own connection: that is why it is in the pipeline.

Promises: each call is answered once, by what the server said or by an exception; a call whose caller went away before it was
sent is not sent.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from redis.asyncio import Redis

__all__ = ["Lane", "Unconfirmed"]

_ABREAST: Final = 4
"""Pipelines at once."""
_MOST_CALLS: Final = 16
_MOST_BYTES: Final = 4 * 1024 * 1024
"""Of one pipeline, which is in memory twice while it is sent."""

Words = tuple[Any, ...]


class Unconfirmed(Exception):
    """The call was done, and too few replicas said so in time."""


class _Call:
    __slots__ = ("answer", "asking", "replicas", "size", "words")

    def __init__(self, words: Words, size: int, replicas: int, asking: bool) -> None:
        self.words = words
        self.size = size
        self.replicas = replicas
        self.asking = asking
        self.answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()


class Lane:
    """`confirming`: milliseconds that a replica has for its confirmation."""

    def __init__(self, client: Redis, confirming: int) -> None:
        self._client = client
        self._confirming = confirming
        self._waiting: deque[_Call] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False

    async def send(self, words: Words, size: int, *, replicas: int = 0, asking: bool = False) -> Any:
        """What the server answers to a command of about `size` bytes, once `replicas` replicas have it too. Raises what
        redis-py raises, or `Unconfirmed`. `asking`: the slot is on its way to this server."""
        call = _Call(words, size, replicas, asking)
        self._waiting.append(call)
        if len(self._tasks) < _ABREAST:
            task = asyncio.get_running_loop().create_task(self._drain())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await call.answer

    @property
    def is_idle(self) -> bool:
        """Nothing is under way."""
        return not self._tasks

    async def aclose(self) -> None:
        """Nothing is under way any more."""
        self._closed = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._fail(list(self._waiting), ConnectionError("closed"))
        self._waiting.clear()

    async def _drain(self) -> None:
        while not self._closed and (calls := self._together()):
            try:
                self._settle(calls, await self._exchange(calls))
            except asyncio.CancelledError:
                self._fail(calls, ConnectionError("closed"))
                raise
            except Exception as error:  # noqa: BLE001  (whatever it is, those who wait for an answer judge it)
                self._fail(calls, error)

    def _together(self) -> list[_Call]:
        calls: list[_Call] = []
        room = _MOST_BYTES
        while self._waiting and len(calls) < _MOST_CALLS and (not calls or self._waiting[0].size <= room):
            call = self._waiting.popleft()
            if not call.answer.done():
                calls.append(call)
                room -= call.size
        return calls

    async def _exchange(self, calls: list[_Call]) -> tuple[list[Any], Any]:
        """The answers to the calls, and to the `WAIT` after them."""
        replicas = max(call.replicas for call in calls)
        pipeline = self._client.pipeline(transaction=False)
        for call in calls:
            if call.asking:
                pipeline.execute_command("ASKING")
            pipeline.execute_command(*call.words)
        if replicas:
            pipeline.execute_command("WAIT", replicas, self._confirming)
        answers = await pipeline.execute(raise_on_error=False)
        confirmed = answers.pop() if replicas else 0
        return answers, confirmed

    @staticmethod
    def _settle(calls: list[_Call], exchanged: tuple[list[Any], Any]) -> None:
        answers, confirmed = exchanged
        rest = iter(answers)
        for call in calls:
            if call.asking:
                next(rest)
            answer = next(rest)
            if not isinstance(answer, Exception) and call.replicas:
                answer = _confirmed(answer, call.replicas, confirmed)
            _give(call, answer)

    @staticmethod
    def _fail(calls: list[_Call], error: Exception) -> None:
        for call in calls:
            _give(call, error)


def _confirmed(answer: Any, replicas: int, confirmed: Any) -> Any:
    if isinstance(confirmed, Exception):
        return confirmed
    if confirmed < replicas:
        return Unconfirmed(f"{confirmed} of {replicas} replicas confirmed in time")
    return answer


def _give(call: _Call, answer: Any) -> None:
    if call.answer.done():
        return
    if isinstance(answer, Exception):
        call.answer.set_exception(answer)
    else:
        call.answer.set_result(answer)
