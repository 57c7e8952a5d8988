"""A traced program under steady load, for long, with a far side that fails now and then: nothing is lost without a
counter that says so, nothing arrives twice, and memory does not grow.

The short form runs with every suite; the long one, half an hour with the default settings, by `nox -s soak`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from .sink import FaultySink, every

pytestmark = pytest.mark.anyio

SUBJECT = Path(__file__).with_name("subject.py")

MIB = 1 << 20


class Soak(msgspec.Struct, frozen=True, kw_only=True):
    """One run. Durations are seconds."""

    rate: int
    seconds: float
    delivery: dict[str, Any]
    timeout: float
    hang: float
    away: float
    """How long the far side's restart takes."""
    growth: int
    """Bytes that memory may grow from the end of the warm-up on, by the slope of a line through the samples."""
    warm_up: float = 0.35
    """Part of the run that is left out of it: libraries load, the log takes the segments that an outage needs."""


QUICK = {"batch_spans": 50, "batch_spans_most": 100, "backoff_initial": 0.05, "backoff_max": 0.2}
SHORT = Soak(rate=1000, seconds=15, delivery=QUICK, timeout=0.5, hang=1.0, away=0.5, growth=2 * MIB)
SHORTER = Soak(rate=3000, seconds=6, delivery=QUICK, timeout=0.5, hang=1.0, away=0.2, growth=4 * MIB)
LONG = Soak(rate=1000, seconds=1800, delivery={"batch_spans": 100}, timeout=5, hang=10, away=20, growth=4 * MIB)

FAULTS = every(_503=(20, 7), reset=(200, 33), take_and_reset=(200, 66), hang=(80, 55))
"""5 % are answered with 503, 1 % are reset, half of them after the spans were taken over; a few hang."""


class Outcome(msgspec.Struct, kw_only=True):
    """What the traced program said about itself."""

    made: int
    receipt: dict[str, int]
    reasons: dict[str, int]
    resident: list[tuple[float, int]]
    lags: list[float]


async def run(soak: Soak, double: str, journal: Path | None = None) -> tuple[Outcome, FaultySink]:
    async with FaultySink(FAULTS, hang=soak.hang) as sink:
        settings = {
            "url": sink.url,
            "rate": soak.rate,
            "seconds": soak.seconds,
            "timeout": soak.timeout,
            "delivery": soak.delivery,
            "journal": str(journal or ""),
            "double": double,
            "shutdown_timeout": 30.0,
        }
        command = [sys.executable, "-W", "error", str(SUBJECT), json.dumps(settings)]
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        said = asyncio.create_task(process.communicate())
        try:
            await asyncio.wait([said], timeout=soak.seconds / 3)
            await sink.restart(soak.away)
            out, err = await asyncio.wait_for(asyncio.shield(said), soak.seconds + 60)
        except BaseException:
            if process.returncode is None:
                process.kill()
            await asyncio.wait([said])
            raise
        assert process.returncode == 0, err.decode()
        return msgspec.json.decode(out.splitlines()[-1], type=Outcome), sink


def assert_faults_happened(sink: FaultySink) -> None:
    for fault in ("503", "reset", "take and reset", "hang", "restart"):
        assert sink.faults[fault] > 0, f"{fault} never happened: {sink.faults}"


def assert_answers_were_ambiguous(sink: FaultySink) -> None:
    assert sink.repeated > 0, "no request was repeated"


def assert_every_span_is_explained(outcome: Outcome, sink: FaultySink) -> None:
    receipt = outcome.receipt
    settled = receipt["accepted"] + receipt["rejected"] + receipt["dropped"]
    assert receipt["ended"] == outcome.made, f"{outcome.made} spans were ended: {receipt}"
    assert receipt["ended"] == settled + receipt["spooled"] + receipt["pending"], f"{receipt}"
    assert receipt["rejected"] + receipt["dropped"] == sum(outcome.reasons.values()), f"{receipt} {outcome.reasons}"
    unexplained = outcome.made - len(sink.arrived) - sum(outcome.reasons.values()) - receipt["spooled"]
    assert unexplained <= 0, f"{unexplained} spans are missing and nobody says so: {receipt} {outcome.reasons}"
    assert len(sink.arrived) >= receipt["accepted"], f"{len(sink.arrived)} arrived: {receipt}"
    assert max(sink.arrived) <= outcome.made, "spans that nobody made"
    assert max(sink.arrived.values()) == 1, "a span came under two keys"


def assert_nothing_was_lost(outcome: Outcome) -> None:
    """The faults are such that a sound tracer needs no explanation."""
    assert outcome.receipt["accepted"] == outcome.made, f"{outcome.receipt} {outcome.reasons}"


def growth(outcome: Outcome, soak: Soak) -> float:
    """Bytes of memory gained between the end of the warm-up and the end, by the least squares of all samples."""
    samples = [(at, size) for at, size in outcome.resident if at >= soak.warm_up * soak.seconds]
    n = len(samples)
    mean_at, mean_size = sum(at for at, _ in samples) / n, sum(size for _, size in samples) / n
    slope = sum((at - mean_at) * (size - mean_size) for at, size in samples) / sum(
        (at - mean_at) ** 2 for at, _ in samples
    )
    return slope * (samples[-1][0] - samples[0][0])


def assert_memory_is_flat(outcome: Outcome, soak: Soak) -> None:
    grown = growth(outcome, soak)
    assert grown <= soak.growth, f"memory grew by {grown / MIB:.1f} MiB for {outcome.made} spans"


async def check_the_soak(soak: Soak, double: str = "sound", journal: Path | None = None) -> None:
    outcome, sink = await run(soak, double, journal)
    assert_faults_happened(sink)
    assert_every_span_is_explained(outcome, sink)
    assert_nothing_was_lost(outcome)
    assert_memory_is_flat(outcome, soak)
    assert_answers_were_ambiguous(sink)


async def test_a_thousand_spans_a_second_and_a_far_side_that_fails(tmp_path: Path) -> None:
    await check_the_soak(SHORT, journal=tmp_path)


@pytest.mark.long
@pytest.mark.parametrize("with_journal", [False, True], ids=["memory", "journal"])
async def test_half_an_hour_with_default_settings(with_journal: bool, tmp_path: Path) -> None:
    await check_the_soak(LONG, journal=tmp_path if with_journal else None)


COMPLAINTS = {
    "sound": None,
    "loses on the way in": "spans were ended",
    "loses on the way out": "nobody says so",
    "calls it accepted": "nobody says so",
    "leaks": "memory grew",
}


async def complaint_about(double: str, turn: asyncio.Semaphore) -> str | None:
    async with turn:
        try:
            await check_the_soak(SHORTER, double)
        except AssertionError as complaint:
            return str(complaint)
    return None


async def test_the_soak_notices_one_span_in_ten_thousand_and_a_small_leak() -> None:
    two_at_once = asyncio.Semaphore(2)
    said = await asyncio.gather(*(complaint_about(double, two_at_once) for double in COMPLAINTS))
    for (double, expected), complaint in zip(COMPLAINTS.items(), said, strict=True):
        assert (expected is None) == (complaint is None), f"{double}: {complaint}"
        assert expected is None or expected in str(complaint), f"{double}: {complaint}"
