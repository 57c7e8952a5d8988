"""The collector's process dies in the middle of its work; every span it had acknowledged is in the store."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Sequence
from pathlib import Path

import aiohttp
import pytest

from asynctrace.collector import SQLiteReader

from .processes import ANSWERS_TOO_EARLY, SERVE, serving
from .traffic import Sender, group, protobuf, span

pytestmark = pytest.mark.anyio

SENDERS = 8
SPANS = 20
"""In one body."""


async def send_until_death(sender: Sender, numbers: itertools.count[int], acknowledged: list[int]) -> None:
    with contextlib.suppress(aiohttp.ClientError):
        while True:
            trace = next(numbers)
            body = protobuf([group(*(span(trace, number) for number in range(1, SPANS + 1)))])
            status, _, _ = await sender.post(body)
            if status == 200:
                acknowledged.append(trace)


async def acknowledged_before_kill(
    directory: Path, program: Sequence[str], numbers: itertools.count[int], kill_after: int
) -> list[int]:
    """Trace numbers of which a collector said 200 before it was killed; it is killed after `kill_after` of them."""
    acknowledged: list[int] = []
    with serving(directory, program=program) as served:
        async with aiohttp.ClientSession() as session:
            sender = Sender(session, served.url)
            senders = [asyncio.create_task(send_until_death(sender, numbers, acknowledged)) for _ in range(SENDERS)]
            while len(acknowledged) < kill_after:
                assert served.process.poll() is None
                await asyncio.sleep(0.001)
            served.process.kill()
            await asyncio.gather(*senders)
    return acknowledged


def missing(directory: Path, acknowledged: list[int]) -> int:
    reader = SQLiteReader(directory)
    return sum(SPANS - sum(len(part.spans) for part in reader.trace(f"{trace:032x}")) for trace in acknowledged)


async def test_nothing_acknowledged_is_lost_in_any_of_several_deaths(tmp_path: Path) -> None:
    numbers = itertools.count(1)
    acknowledged: list[int] = []
    for kill_after in (1, 17, 40, 73):
        acknowledged += await acknowledged_before_kill(tmp_path, SERVE, numbers, kill_after)
        assert missing(tmp_path, acknowledged) == 0
    assert len(acknowledged) >= 131


async def test_a_collector_that_answers_too_early_is_caught(tmp_path: Path) -> None:
    early = ("-c", ANSWERS_TOO_EARLY)
    acknowledged = await acknowledged_before_kill(tmp_path, early, itertools.count(1), 40)
    assert missing(tmp_path, acknowledged) > 0
