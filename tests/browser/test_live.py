"""What happens is seen while it happens: new runs, open spans, ends, pauses, many tabs, restarts, bursts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from ..collector.processes import Served, serving
from .seeing import Look, drawn, eventually, rows, runs, tree
from .traces import Span, Trace, agent, chain, encode, just_now, post


def _opened(number: int, *, ago: float = 2.0) -> Trace:
    """A root and a child, both open, which began just now."""
    trace = Trace(number, time.time_ns() - int(ago * 1e9))
    trace.add(Span("root", 0, None))
    trace.add(Span("child", 100, None, 0))
    return trace


def _fill(url: str, count: int) -> None:
    for number in range(1, count + 1):
        assert post(url, encode(chain(number, f"run {number}", start_ns=just_now() - number * 10**9))) == 200


def check_arrival(look: Look, url: str, within: float) -> None:
    page = look.listening()
    page.evaluate("() => { document.querySelector('.run-grid').scrollTop = 46 * 20 }")
    drawn(page)
    before = [run["name"] for run in runs(page)][4:12]
    places = [run["top"] for run in runs(page)][4:12]
    assert post(url, encode(chain(0xC1, "brand new", start_ns=time.time_ns()))) == 200
    began = time.monotonic()
    arrived = "() => document.querySelector('.run-grid').getAttribute('aria-rowcount')"
    look.shows(lambda: page.evaluate(arrived) == "41")
    assert time.monotonic() - began <= within
    drawn(page)
    shown = {run["name"]: run["top"] for run in runs(page)}
    assert [shown.get(name) for name in before] == places
    page.evaluate("() => { document.querySelector('.run-grid').scrollTop = 0 }")
    look.shows(lambda: runs(page)[0]["name"] == "brand new")


def test_a_new_run_is_there_within_a_second_and_the_place_is_kept(
    own: Served, looking: Callable[..., Look], slack: float
) -> None:
    _fill(own.url, 40)
    check_arrival(looking(own.url), own.url, 1.0 * slack)


HELD = """(() => {
    const { send } = WebSocket.prototype, held = [];
    WebSocket.prototype.send = function (text) { held.push([this, text]); };
    window.letThrough = () => {
        WebSocket.prototype.send = send;
        for (const [socket, text] of held) send.call(socket, text);
    };
})()"""
"""What the page wants to hear of reaches the collector only when the test says so."""


def check_what_comes_between(look: Look, url: str) -> None:
    page = look.page
    page.add_init_script(HELD)
    page.goto(url)
    look.ready()
    page.locator(".connection.live").wait_for()
    assert runs(page) == []
    assert post(url, encode(chain(0xC2, "between"))) == 200
    page.evaluate("() => letThrough()")
    look.shows(lambda: [run["name"] for run in runs(page)] == ["between"], lambda: runs(page))


def test_a_run_that_comes_after_the_list_was_read_and_before_the_page_listens_is_shown(
    own: Served, looking: Callable[..., Look]
) -> None:
    check_what_comes_between(looking("about:blank"), own.url)


def test_a_page_that_does_not_look_again_is_noticed(own: Served, looking: Callable[..., Look]) -> None:
    changed = ("base/live.js", "?.again?.();\n    else", "?.message;\n    else")
    with pytest.raises(AssertionError):
        check_what_comes_between(looking("about:blank", changed=changed), own.url)


def check_open(look: Look, mark: Callable[[], str], spent: Callable[[], str]) -> None:
    look.ready()
    look.shows(lambda: mark() == "◌", mark)
    seen = set()
    look.shows(
        lambda: seen.add(spent()) or len(seen) >= 5, lambda: seen
    )  # it ticks; news alone would move it once or twice


def test_an_open_run_ticks_in_the_list_and_in_its_trace_and_ends_exactly(
    own: Served, looking: Callable[..., Look]
) -> None:
    trace = _opened(0xC2)
    assert post(own.url, encode(trace)) == 200
    listed, shown = looking(own.url), looking(f"{own.url}/trace/{trace.id}")
    check_open(listed, lambda: runs(listed.page)[0]["mark"], lambda: runs(listed.page)[0]["time"])
    check_open(shown, lambda: rows(shown.page)[1]["mark"], lambda: rows(shown.page)[1]["time"])

    # the root ends before its child: the run stays open
    trace.spans[0].duration = 2345.0
    assert post(own.url, encode(trace, [0])) == 200
    shown.shows(lambda: rows(shown.page)[0]["time"] == "2.345\u202fs", lambda: rows(shown.page))
    assert rows(shown.page)[1]["mark"] == "◌"
    assert shown.page.locator("h1 .mark").inner_text() == "◌"
    listed.shows(lambda: runs(listed.page)[0]["mark"] == "◌")

    trace.spans[1].duration, trace.spans[1].status = 1234.0, 2
    assert post(own.url, encode(trace, [1])) == 200
    shown.shows(lambda: rows(shown.page)[1]["mark"] == "✕", lambda: rows(shown.page))
    assert rows(shown.page)[1]["time"] == "1.234\u202fs"
    shown.shows(lambda: shown.page.locator("h1 .mark").inner_text() != "◌")
    listed.shows(lambda: runs(listed.page)[0]["mark"] == "●", lambda: runs(listed.page))
    assert runs(listed.page)[0]["time"] == "2.345\u202fs"


def check_pause(look: Look, url: str, first: int) -> None:
    page = look.listening()
    page.get_by_role("button", name="Pause").click()
    before = runs(page)
    for number in range(first, first + 3):
        assert post(url, encode(chain(number, f"while paused {number}"))) == 200
    look.shows(
        lambda: page.locator(".pause").inner_text() == "3 new · Resume", lambda: page.locator(".pause").inner_text()
    )
    assert runs(page) == before
    page.locator(".pause").click()
    look.shows(lambda: len(runs(page)) == len(before) + 3)


def test_a_pause_counts_what_is_new_and_shows_it_at_its_end(own: Served, looking: Callable[..., Look]) -> None:
    _fill(own.url, 2)
    check_pause(looking(own.url), own.url, 0xC40)


def check_tabs(first: Look, url: str) -> None:
    tabs = [first, *(Look(first.page.context.new_page()) for _ in range(7))]
    for tab in tabs[1:]:
        tab.patience = first.patience
        tab.page.evaluate("url => { location.href = url }", url)
    for tab in tabs:
        tab.shows(lambda tab=tab: tab.page.locator(".connection.live").count() == 1 and runs(tab.page))
    assert post(url, encode(chain(0xC5, "for all of them"))) == 200
    for tab in tabs:
        tab.shows(lambda tab=tab: any(run["name"] == "for all of them" for run in runs(tab.page)))


def test_eight_tabs_are_all_live(own: Served, looking: Callable[..., Look]) -> None:
    _fill(own.url, 1)
    check_tabs(looking(own.url), own.url)


def test_tabs_that_share_the_six_connections_of_a_browser_are_noticed(
    own: Served, looking: Callable[..., Look]
) -> None:
    """News by HTTP, as server-sent events would be."""
    _fill(own.url, 1)
    look = looking(
        own.url, changed=("base/live.js", "this.connected = 0;", "this.connected = 0; fetch('/api/v1/tail');")
    )
    with pytest.raises(AssertionError):
        check_tabs(look, own.url)


def test_after_kill_9_and_a_restart_the_page_is_back_and_nothing_is_missing(
    tmp_path: Path, looking: Callable[..., Look], slack: float
) -> None:
    with serving(tmp_path) as collector:
        port = str(urlsplit(collector.url).port)
        _fill(collector.url, 5)
        trace = _opened(0xC6)
        assert post(collector.url, encode(trace)) == 200
        listed, shown = looking(collector.url), looking(f"{collector.url}/trace/{trace.id}")
        for look in (listed, shown):
            look.ready()
            look.page.locator(".connection.live").wait_for()
        listed.shows(lambda: len(runs(listed.page)) == 6)
        collector.process.kill()
        collector.process.wait()
        listed.page.locator(".connection.away").wait_for()
    with serving(tmp_path, "--port", port) as collector:
        began = time.monotonic()
        for look in (listed, shown):
            look.page.locator(".connection.live").wait_for()
        assert time.monotonic() - began < 5 * slack
        assert post(collector.url, encode(chain(0xC7, "after the restart"))) == 200
        listed.shows(lambda: len(runs(listed.page)) == 7, lambda: runs(listed.page))
        assert {f"run {number}" for number in range(1, 6)} <= {run["name"] for run in runs(listed.page)}
        listed.shows(
            lambda: any(run["trace"] == trace.id and run["state"] == "interrupted" for run in runs(listed.page)),
            lambda: runs(listed.page),
        )
        shown.shows(
            lambda: all("interrupted" in row["label"] for row in rows(shown.page)),
            lambda: tree(shown.page),
        )


LATENCY = """() => {
    window.waits = [];
    const input = document.querySelector('[role=combobox]');
    input.addEventListener('keydown', event => {
        const began = event.timeStamp; // when the key was pressed, not when it was heeded
        requestAnimationFrame(() => setTimeout(() => window.waits.push(performance.now() - began), 0));
    });
}"""


def check_burst(look: Look, url: str, slack: float, thousands: int) -> None:
    page = look.ready()
    page.locator(".connection.live").wait_for()
    trace = Trace(0xC8, just_now())
    trace.add(Span("burst", 0, 20_000))
    for i in range(thousands * 1000 - 1):
        trace.add(Span(f"part {i % 50}", i, 1, 0))
    bodies = [encode(trace, range(first, first + 1000)) for first in range(0, thousands * 1000, 1000)]
    page.evaluate(LATENCY)
    page.focus("[role=combobox]")
    for body in bodies:
        assert post(url, body) == 200
        page.keyboard.type(" ")  # which asks for nothing new: what is shown comes live
        page.keyboard.press("Backspace")
    look.shows(lambda: page.evaluate("() => window.waits.length") == 2 * len(bodies))
    waits = sorted(page.evaluate("() => window.waits"))
    assert waits[int(len(waits) * 0.95)] < 200 * slack
    counts = f"{thousands}\u202f000"
    look.shows(lambda: [run["spans"] for run in runs(page) if run["name"] == "burst"] == [counts], lambda: runs(page))


def test_a_burst_does_not_hold_up_the_keyboard_and_ends_with_exact_counts(
    own: Served, looking: Callable[..., Look], slack: float
) -> None:
    _fill(own.url, 1)
    check_burst(looking(own.url), own.url, slack, 20)


@pytest.mark.parametrize("mutant", ["busy with each message", "knows a run as it was first"])
def test_a_burst_that_is_too_much_is_noticed(mutant: str, own: Served, looking: Callable[..., Look]) -> None:
    _fill(own.url, 1)
    until = "for (const end = performance.now() + 1000; performance.now() < end; );"
    changed = {
        "busy with each message": ("base/live.js", "receive(message) {", f"receive(message) {{ {until}"),
        "knows a run as it was first": ("screens/run-list.js", "this.items[place] = summary;", "void 0;"),
    }
    look = looking(own.url, changed=changed[mutant])
    with pytest.raises(AssertionError):
        check_burst(look, own.url, 1.0, 4)


@pytest.mark.long
def test_a_million_spans_are_listed_and_paged_at_once(
    million: Served, looking: Callable[..., Look], slack: float
) -> None:
    began = time.monotonic()
    page = looking(million.url).ready()
    listed = time.monotonic() - began
    began = time.monotonic()
    page.evaluate("() => { document.querySelector('.run-grid').scrollTop = 46 * 45 }")
    count = "() => Number(document.querySelector('.run-grid').getAttribute('aria-rowcount'))"
    eventually(lambda: page.evaluate(count) == 100, 20, page=page)
    paged = time.monotonic() - began
    print(f"listed in {listed:.2f} s, paged in {paged:.2f} s")
    assert listed < 0.5 * slack + 1.0  # the browser's own start
    assert paged < 0.3 * slack


def test_the_list_goes_on_as_long_as_one_scrolls(own: Served, looking: Callable[..., Look]) -> None:
    _fill(own.url, 130)
    look = looking(own.url)
    page = look.listening()  # a list that is read anew begins with its first page
    for last in (100, 130):
        page.evaluate("() => { const grid = document.querySelector('.run-grid'); grid.scrollTop = grid.scrollHeight }")
        look.shows(lambda last=last: page.get_attribute(".run-grid", "aria-rowcount") == str(last))
    page.evaluate("() => { const grid = document.querySelector('.run-grid'); grid.scrollTop = grid.scrollHeight }")
    look.shows(lambda: runs(page)[-1]["name"] == "run 130", lambda: runs(page)[-1])


def test_hours_of_runs_do_not_fill_the_memory(own: Served, looking: Callable[..., Look]) -> None:
    """The short form: as many spans as fast as they go; `-m long` is half an hour."""
    _watch(own.url, looking(own.url), seconds=15.0)


@pytest.mark.long
def test_half_an_hour_of_runs_does_not_fill_the_memory(own: Served, looking: Callable[..., Look]) -> None:
    _watch(own.url, looking(own.url), seconds=float(os.environ.get("ASYNCTRACE_LIVE_SECONDS", "1800")))


def _watch(url: str, look: Look, seconds: float) -> None:
    _fill(url, 1)
    page = look.ready()
    page.locator(".connection.live").wait_for()
    session = page.context.new_cdp_session(page)
    session.send("Performance.enable")
    began = time.monotonic()
    number = 0xC70000
    while time.monotonic() - began < seconds:
        number += 1
        assert post(url, encode(agent(number, time.time_ns(), seed=number))) == 200
        page.wait_for_timeout(100)
    look.shows(lambda: runs(page)[0]["trace"] == f"{number:032x}", lambda: runs(page)[0])
    session.send("HeapProfiler.collectGarbage")
    metrics = {one["name"]: one["value"] for one in session.send("Performance.getMetrics")["metrics"]}
    assert metrics["JSHeapUsedSize"] < 150e6
    assert metrics["Nodes"] < 5000
    assert not look.complaints


def test_a_list_that_does_not_listen_is_noticed(own: Served, looking: Callable[..., Look]) -> None:
    _fill(own.url, 40)
    look = looking(
        own.url, changed=("base/live.js", "this.subscriptions.get(message.type)?.message(message);", "void 0;")
    )
    with pytest.raises(AssertionError):
        check_arrival(look, own.url, 2.0)


def test_a_list_that_jumps_is_noticed(own: Served, looking: Callable[..., Look]) -> None:
    _fill(own.url, 40)
    look = looking(own.url, changed=("screens/run-list.js", "added * ROW : 0", "0 : 0"))
    with pytest.raises(AssertionError):
        check_arrival(look, own.url, 20.0)


def test_a_pause_that_is_none_is_noticed(own: Served, looking: Callable[..., Look]) -> None:
    _fill(own.url, 2)
    look = looking(
        own.url, changed=("screens/run-list.js", "else if (this.paused) this.waiting", "else if (false) this.waiting")
    )
    with pytest.raises(AssertionError):
        check_pause(look, own.url, 0xC50)


def test_time_that_stands_still_is_noticed(own: Served, looking: Callable[..., Look]) -> None:
    trace = _opened(0xC3)
    assert post(own.url, encode(trace)) == 200
    look = looking(
        f"{own.url}/trace/{trace.id}",
        changed=("trace/screen.js", "this.model.now = this.now();\n    if (this.follows)", "if (this.follows)"),
    )
    with pytest.raises(AssertionError):
        check_open(look, lambda: rows(look.page)[1]["mark"], lambda: rows(look.page)[1]["time"])
