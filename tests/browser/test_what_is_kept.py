"""What a full store lets go, and what it keeps, as one sees it."""

from __future__ import annotations

import base64
import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ..collector.processes import SERVE, Served, serving
from .seeing import Look, runs, tree
from .traces import Span, Trace, encode, post

MB = 1_000_000
RUN = 0.5
"""MB of a run, of which no codec makes less than three quarters."""

SWEEPS_OFTEN = """
import functools, sys
from asynctrace.cli import main
from asynctrace.collector import _app

_app.sweeping = functools.partial(_app.sweeping, every=0.2)
"""
"""A collector that looks at its bounds five times a second, and not every ten seconds."""
FORGETS_PINS = SWEEPS_OFTEN + "_app.SQLiteStore._pinned = lambda store: set()\n"
SAYS_NOTHING = SWEEPS_OFTEN + "_app.sweeping = lambda store, swept, inner=_app.sweeping: inner(store)\n"
START = 'sys.exit(main(["serve", *sys.argv[1:]]))\n'


def _run(number: int, began_ns: int) -> Trace:
    trace = Trace(number, began_ns + number * 10**6)
    for i in range(10):
        text = base64.b64encode(os.urandom(int(RUN * MB / 10 * 3 / 4))).decode()
        trace.add(Span(f"run {number}" if not i else "part", i, 10, 0 if i else None, input=text))
    return trace


def names(look: Look) -> list[str]:
    return [run["name"] for run in runs(look.page)]


def end(look: Look) -> list[str]:
    """The end of the list, after a look at its beginning, where a list is brought up to date."""
    for place in ("0", "grid.scrollHeight"):
        look.page.evaluate(f"() => {{ const grid = document.querySelector('.run-grid'); grid.scrollTop = {place} }}")
        look.page.wait_for_timeout(100)
    return names(look)


def stored(directory: Path) -> int:
    """Bytes. What is let go meanwhile has none."""
    found = 0
    for file in directory.glob("seg-*.db"):
        with contextlib.suppress(FileNotFoundError):
            found += file.stat().st_size
    return found


def check_bounds(collector: Served, looking: Callable[..., Look], size: float) -> None:
    """Of twice what has room, the newest stays, and the oldest one, which is pinned."""
    began_ns = time.time_ns()
    count = int(2 * size / RUN)
    for number in (1, 2, 3):
        assert post(collector.url, encode(_run(number, began_ns))) == 200
    shown, listed = looking(f"{collector.url}/trace/{1:032x}"), looking(collector.url)
    shown.ready().get_by_role("button", name="Pin", exact=True).click()
    shown.page.get_by_role("button", name="Pinned").wait_for()
    listed.listening()
    for number in range(4, count + 1):
        assert post(collector.url, encode(_run(number, began_ns))) == 200

    listed.shows(lambda: names(listed)[0] == f"run {count}", lambda: names(listed)[0])
    listed.shows(lambda: end(listed)[-1] == "run 1" and "run 2" not in names(listed), lambda: end(listed))
    assert listed.page.locator(f".run[data-trace='{1:032x}']:visible .pin").all_inner_texts() == ["pinned"]
    listed.shows(lambda: stored(collector.directory) <= size * MB)
    shown.page.reload()
    assert tree(shown.ready()) == ["run 1", "  part \u00d79"]
    gone = looking(f"{collector.url}/trace/{2:032x}")
    gone.page.get_by_text("among the oldest of a full store").wait_for()


def test_a_full_store_lets_the_oldest_go_but_what_is_pinned(tmp_path: Path, looking: Callable[..., Look]) -> None:
    with serving(tmp_path, "--max-size", "4MB", program=("-c", SWEEPS_OFTEN + START)) as collector:
        check_bounds(collector, looking, 4)


@pytest.mark.long
def test_a_store_of_64_mb_lets_the_oldest_go_but_what_is_pinned(tmp_path: Path, looking: Callable[..., Look]) -> None:
    with serving(tmp_path, "--max-size", "64MB", program=SERVE) as collector:
        check_bounds(collector, looking, 64)


@pytest.mark.parametrize(
    "program", [pytest.param(FORGETS_PINS, id="forgets pins"), pytest.param(SAYS_NOTHING, id="says nothing")]
)
def test_a_store_that_keeps_the_wrong_runs_or_is_silent_is_noticed(
    program: str, tmp_path: Path, looking: Callable[..., Look]
) -> None:
    def impatient(url: str) -> Look:
        look = looking(url)
        look.patience = 3000
        return look

    bounded = serving(tmp_path, "--max-size", "4MB", program=("-c", program + START))
    with bounded as collector, pytest.raises(AssertionError):
        check_bounds(collector, impatient, 4)
