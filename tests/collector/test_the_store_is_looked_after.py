"""While a collector runs: its store stays within bounds, and one of the first format is taken over before it answers."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
from pathlib import Path

import pytest

from asynctrace import ConfigurationError
from asynctrace.collector import Bounds, Collector, SQLiteReader, SQLiteStore, StoreError
from asynctrace.collector._upkeep import sweeping
from asynctrace.collector.store import Swept

from .traffic import collecting

FIRST_FORMAT = Path(__file__).parent / "store" / "formats" / "traces-1.db.gz"

pytestmark = pytest.mark.anyio


class StoreThatCountsSweeps(SQLiteStore):
    """The real one; every second sweep fails."""

    sweeps = 0

    def sweep(self) -> Swept:
        self.sweeps += 1
        if self.sweeps % 2:
            raise StoreError("the store cannot be swept")
        return super().sweep()


async def test_a_sweep_that_fails_is_said_and_tried_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with contextlib.closing(StoreThatCountsSweeps(tmp_path, bounds=Bounds(age=3600.0))) as store:
        async with sweeping(store, every=0.01):
            for _ in range(2000):
                if store.sweeps >= 4:
                    break
                await asyncio.sleep(0.01)
        assert store.sweeps >= 4
        assert "collector.sweep_failed" in capsys.readouterr().err


async def test_who_wants_to_know_is_told_how_many_traces_went(tmp_path: Path) -> None:
    class StoreThatTakesAway(SQLiteStore):
        def sweep(self) -> Swept:
            return Swept(segments=1, traces=3)

    told: asyncio.Queue[int] = asyncio.Queue()
    with contextlib.closing(StoreThatTakesAway(tmp_path)) as store:
        async with sweeping(store, every=0.01, swept=told.put_nowait), asyncio.timeout(30):
            assert await told.get() == 3


async def test_a_store_of_the_first_format_is_taken_over_before_the_first_answer(tmp_path: Path) -> None:
    (tmp_path / "traces.db").write_bytes(gzip.decompress(FIRST_FORMAT.read_bytes()))
    async with collecting(tmp_path) as sender:
        traces = await sender.traces()
        assert traces
    assert not (tmp_path / "traces.db").exists()
    assert SQLiteReader(tmp_path).statistics().traces == len(traces)


async def test_what_cannot_be_taken_over_stays_and_is_named(tmp_path: Path) -> None:
    (tmp_path / "traces.db").write_bytes(b"no database" * 1000)
    with contextlib.closing(SQLiteStore(tmp_path)) as store, pytest.raises(ConfigurationError, match=r"traces\.db"):
        await Collector(store, port=0).start()
    assert (tmp_path / "traces.db").exists()
