"""Spans of dead processes that nobody can deliver any more are told of before their journal goes, in numbers."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import pytest
import structlog

from asynctrace import DeliveryNotice
from asynctrace.exporters import MemoryExporter
from asynctrace.runtime import _recovery
from asynctrace.spanlog.journal import list_journals, service_folder

from .journals import LANE, SERVICE, leave_spooled, make_tracer, states

pytestmark = pytest.mark.anyio

TWO_DAYS = 2 * 24 * 3600


async def said_while_it_recovers(state: Path, **options: Any) -> list[Any]:
    """What a tracer says that finds journals in `state`, and leaves none."""
    with structlog.testing.capture_logs() as said:
        async with make_tracer(state, MemoryExporter(name=LANE), **options):
            async with asyncio.timeout(10):
                while len(states(state)) > 1:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
    assert states(state) == []
    return said


def journal_in(state: Path) -> Path:
    return list_journals(service_folder(state, SERVICE))[0].path


def spoil(path: Path, pattern: str) -> None:
    for file in path.glob(pattern):
        with open(file, "r+b") as opened:
            opened.write(os.urandom(64))


def make_old(path: Path) -> None:
    then = time.time() - TWO_DAYS
    for file in path.iterdir():
        os.utime(file, (then, then))


async def check_that_damage_is_told(state: Path) -> None:
    await leave_spooled(state, 5)
    path = journal_in(state)
    spoil(path, "*.seg")
    spoil(path, "*.slab")
    damaged = [line for line in await said_while_it_recovers(state) if line["event"] == "runtime.journal_damaged"]
    assert [(line["segments"] > 0, line["open_spans"], line["journal"]) for line in damaged] == [(True, 1, path.stem)]


async def test_a_journal_of_which_nothing_can_be_read_is_told_of_before_it_goes(state_directory: Path) -> None:
    await check_that_damage_is_told(state_directory)


async def test_recovery_that_is_silent_about_damage_is_noticed(
    state_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_recovery.Recovery, "_tell_damage", lambda self, orphan: None)
    with pytest.raises(AssertionError):
        await check_that_damage_is_told(state_directory)


async def check_that_expiry_is_counted(state: Path) -> None:
    await leave_spooled(state, 7)
    path = journal_in(state)
    make_old(path)
    told: list[DeliveryNotice] = []
    said = await said_while_it_recovers(state, on_drop=told.append)
    expired = [line for line in said if line["event"] == "runtime.journals_expired"]
    assert [(line["journals"], line["spans"], line["first"]) for line in expired] == [(1, 7, str(path))]
    assert [(notice.reason, notice.count, notice.journal_id) for notice in told] == [("expired", 7, path.stem)]


async def test_a_journal_that_is_too_old_goes_and_its_spans_are_counted(state_directory: Path) -> None:
    await check_that_expiry_is_counted(state_directory)


async def test_an_expiry_without_a_count_is_noticed(state_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_recovery, "_count_undelivered", lambda directory: 0)
    with pytest.raises(AssertionError):
        await check_that_expiry_is_counted(state_directory)


async def check_that_a_disk_gets_another_chance(state: Path, seconds: float = 10.0) -> None:
    await leave_spooled(state, 4)
    deaths = journal_in(state) / "deaths"
    deaths.unlink()
    deaths.mkdir()  # so that it cannot be written
    with structlog.testing.capture_logs() as said:
        async with make_tracer(state, MemoryExporter(name=LANE)) as tracer, asyncio.timeout(seconds):
            while not any(line["event"] == "runtime.recovery_failed" for line in said):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            deaths.rmdir()
            while tracer.receipt().recovered != 4:  # noqa: ASYNC110
                await asyncio.sleep(0.01)


@pytest.fixture
def quick_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_recovery, "_PASS_INTERVAL", 0.1)
    monkeypatch.setattr(_recovery, "_SIBLING_INTERVAL", 0.05)


@pytest.mark.usefixtures("quick_passes")
async def test_a_journal_that_could_not_be_read_is_tried_again(
    state_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_recovery, "_AGAIN", 0.05)
    await check_that_a_disk_gets_another_chance(state_directory)


@pytest.mark.usefixtures("quick_passes")
async def test_recovery_that_gives_up_after_one_failure_is_noticed(state_directory: Path) -> None:
    with pytest.raises(TimeoutError):
        await check_that_a_disk_gets_another_chance(state_directory, seconds=1.0)


async def test_nothing_is_said_of_a_journal_that_is_delivered_whole(state_directory: Path) -> None:
    await leave_spooled(state_directory, 3)
    said = await said_while_it_recovers(state_directory)
    assert {line["event"] for line in said} & {"runtime.journal_damaged", "runtime.journals_expired"} == set()
