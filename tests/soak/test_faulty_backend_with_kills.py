"""Processes that are killed at random, a far side that fails for a third of the requests, a journal: every span whose
`end()` returned arrives, and none twice under different keys.

An oracle page, shared with the processes and outliving them, holds what was ended.
"""

from __future__ import annotations

import asyncio
import json
import mmap
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from asynctrace.spanlog.journal._directory import QUARANTINE

from .numbering import LIVES, place_of, span_at
from .sink import FaultySink, Plan, every

pytestmark = pytest.mark.anyio

WORKER = Path(__file__).with_name("worker.py")

FAULTS = every(
    _503=(20, 3), _503__again=(20, 9), _503__more=(20, 14), reset=(20, 6), take_and_reset=(20, 17), hang=(20, 11)
)
"""Six of twenty requests."""

AMBIGUOUS = every(take_and_reset=(3, 1))
"""For the doubles: a third of the requests is taken over, and not answered."""

SWEEPS = 20
"""Processes that may live to their end until every journal is delivered."""

EARLY = 0.2
"""Part of the lives that may end while the process starts, or begins to recover what others left."""

LONGEST_START = 0.8
"""Seconds."""


class Killing(msgspec.Struct, frozen=True, kw_only=True):
    spans: int
    slots: int = 3
    most: int = 6000
    """Spans of one life that is not killed."""
    longest_life: float = 1.0
    """Seconds from the first span on."""
    requests: int | None = None
    """Instead of a time: the far side takes a request in, at most the so-manieth of this life, and the life ends there."""
    pause: float = 0.004
    """Seconds between two bursts of twenty spans."""


DELIVERY = {"batch_spans_most": 200, "backoff_initial": 0.02, "backoff_max": 0.2}
"""The size of batches is another one in each life: a successor that cuts anew cuts differently."""

SHORT = Killing(spans=30_000)
SHORTER = Killing(spans=5_000, slots=2, requests=6, pause=0.01)
LONG = Killing(spans=1_000_000, most=60_000, longest_life=8.0)


class Deaths:
    """Slots, each with one process after the other, that are killed while there are spans to make."""

    def __init__(self, killing: Killing, sink: FaultySink, folder: Path, double: str, seed: int) -> None:
        self.kills = 0
        self.complaints: list[str] = []
        self._killing = killing
        self._sink = sink
        self._folder = folder
        self._double = double
        self._random = random.Random(seed)
        size = killing.slots * LIVES * killing.most
        self._oracle = folder / "oracle"
        with open(self._oracle, "w+b") as file:
            file.truncate(size)
            self._page = mmap.mmap(file.fileno(), size)

    async def run(self) -> None:
        quota = self._killing.spans // self._killing.slots
        await asyncio.gather(*(self._live(slot, quota) for slot in range(self._killing.slots)))
        await self._sweep()

    def ended(self) -> Iterator[int]:
        """The ids of all spans whose end returned."""
        place = self._page.find(b"\x01")
        while place >= 0:
            yield span_at(place, self._killing.most)
            place = self._page.find(b"\x01", place + 1)

    def was_ended(self, span_id: int) -> bool:
        return bool(self._page[place_of(span_id, self._killing.most)])

    def journals(self) -> list[str]:
        """What nobody has delivered yet, in which folder."""
        return sorted(f"{path.parent.name}/{path.name}" for path in (self._folder / "state").rglob("*.j"))

    def close(self) -> None:
        self._page.close()

    async def _live(self, slot: int, quota: int) -> None:
        for life in range(LIVES - SWEEPS):
            process = await self._start(slot, life, self._killing.most)
            dies_early = self._random.random() < EARLY
            if not dies_early:
                await process.stdout.readline()  # type: ignore[union-attr]
            said = asyncio.create_task(process.communicate())
            if self._killing.requests is None or dies_early:
                longest = LONGEST_START if dies_early else self._killing.longest_life
                await asyncio.wait([said], timeout=self._random.uniform(0.0, longest))
            else:
                request = asyncio.create_task(self._sink.next_request(self._random.randint(1, self._killing.requests)))
                await asyncio.wait([said, request], timeout=30, return_when=asyncio.FIRST_COMPLETED)
                request.cancel()
            if not said.done():
                process.send_signal(signal.SIGKILL)
                self.kills += 1
            self._judge(process, *await said)
            if self._ended_by(slot) >= quota:
                return
        raise AssertionError("too many lives")

    def _ended_by(self, slot: int) -> int:
        size = LIVES * self._killing.most
        return self._page[slot * size : (slot + 1) * size].count(1)

    async def _sweep(self) -> None:
        """Processes that live to their end, until no journal is left."""
        for life in range(LIVES - SWEEPS, LIVES):
            self._give_back()
            process = await self._start(0, life, 20)
            self._judge(process, *await asyncio.wait_for(process.communicate(), 90))
            if not self.journals():
                return

    def _give_back(self) -> None:
        """What three processes in a row died over while they read it is put aside, not lost: here chance killed them."""
        for path in list((self._folder / "state").rglob(f"{QUARANTINE}/*.j")):
            assert "died over it" in (path / "reason").read_text()
            back = path.rename(path.parent.parent / path.name)
            (back / "deaths").write_bytes(b"0")

    async def _start(self, slot: int, life: int, spans: int) -> asyncio.subprocess.Process:
        settings = {
            "url": self._sink.url,
            "oracle": str(self._oracle),
            "journal": str(self._folder / "state"),
            "slot": slot,
            "life": life,
            "spans": spans,
            "most": self._killing.most,
            "pause": self._killing.pause,
            "double": self._double,
            "delivery": {**DELIVERY, "batch_spans": 40 + life % 7},
        }
        command = [sys.executable, str(WORKER), json.dumps(settings)]
        return await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )

    def _judge(self, process: asyncio.subprocess.Process, out: bytes, err: bytes) -> None:
        if process.returncode not in (0, -signal.SIGKILL) or b"Traceback" in err:
            self.complaints.append(err.decode())


async def check_nothing_is_lost(
    killing: Killing, folder: Path, double: str = "sound", seed: int = 1, plan: Plan = FAULTS
) -> None:
    async with FaultySink(plan, hang=1.5) as sink:
        deaths = Deaths(killing, sink, folder, double, seed)
        try:
            await deaths.run()
            judge(deaths, sink, killing)
        finally:
            deaths.close()


def judge(deaths: Deaths, sink: FaultySink, killing: Killing) -> None:
    assert deaths.complaints == []
    ended = set(deaths.ended())
    assert len(ended) >= killing.spans
    assert deaths.kills >= killing.slots, f"{deaths.kills} kills"
    lost = ended - sink.arrived.keys()
    assert not lost, f"{len(lost)} of {len(ended)} spans are lost; journals left: {deaths.journals()}"
    twice = [span_id for span_id, times in sink.arrived.items() if times > 1]
    assert not twice, f"{len(twice)} spans came twice, under different keys"
    foreign = [span_id for span_id in sink.arrived if span_id not in ended]
    assert len(foreign) <= 3 * deaths.kills, f"{len(foreign)} spans that nobody ended, after {deaths.kills} kills"
    total, accepted = sum(sink.faults.values()), sink.faults["accept"]
    assert accepted <= 0.8 * total, f"the far side hardly failed: {sink.faults}"


async def test_no_span_is_lost_or_doubled_by_kills_and_faults(tmp_path: Path) -> None:
    await check_nothing_is_lost(SHORT, tmp_path)


@pytest.mark.long
async def test_a_million_spans_with_kills_and_faults(tmp_path: Path) -> None:
    await check_nothing_is_lost(LONG, tmp_path, seed=2)


@pytest.mark.parametrize(("double", "complaint"), [("in memory", "are lost"), ("forgets windows", "came twice")])
async def test_the_check_notices(double: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=complaint):
        await check_nothing_is_lost(SHORTER, tmp_path, double, plan=AMBIGUOUS)
