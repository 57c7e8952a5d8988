"""Finding: the query where it stands wrong, values while one types, links that bring the same view back."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ..collector.processes import Served, serving
from .seeing import PATIENCE, Look, heeded, rows, runs, tree
from .traces import Span, Trace, agent, chain, encode, just_now, post

WRONG = "service:research dur>soon is:open"


def check_underline(look: Look) -> None:
    page = look.ready()
    page.fill("[role=combobox]", WRONG)
    page.keyboard.press("Enter")
    look.shows(lambda: page.locator(".mirror mark").count() == 1, lambda: page.inner_text(".list-bar"))
    assert WRONG.index("dur>soon") <= WRONG.index(page.locator(".mirror mark").inner_text()) < WRONG.index(" is:open")
    field, mark = page.locator("[role=combobox]").bounding_box(), page.locator(".mirror mark").bounding_box()
    assert field is not None
    assert mark is not None
    letters = mark["width"] / len(page.locator(".mirror mark").inner_text())
    assert mark["x"] - field["x"] == pytest.approx(
        10 + letters * WRONG.index(page.locator(".mirror mark").inner_text()), abs=2
    )
    assert page.locator("[role=alert]").first.inner_text()
    assert page.locator("[role=combobox]").get_attribute("aria-invalid") == "true"
    page.fill("[role=combobox]", "")
    look.shows(lambda: page.locator(".mirror mark").count() == 0)


def test_a_malformed_query_is_underlined_where_it_is_wrong(
    shared: Served, sent: Callable[[Trace], str], looking: Callable[..., Look], photograph: Callable[..., None]
) -> None:
    sent(chain(0xF3, "checkout"))
    look = looking(shared.url)
    check_underline(look)
    look.page.fill("[role=combobox]", WRONG)
    look.page.locator(".mirror mark").wait_for()
    photograph(look.page, "malformed-light")


def test_a_query_filters_the_list_and_what_comes_later(own: Served, looking: Callable[..., Look]) -> None:
    for number, name in enumerate(("tea", "coffee", "tea with milk"), 1):
        assert post(own.url, encode(chain(number, name, start_ns=just_now() - number * 10**9))) == 200
    look = looking(own.url)
    page = look.ready()
    page.fill("[role=combobox]", 'name:"tea*"')
    page.keyboard.press("Enter")
    look.shows(lambda: [run["name"] for run in runs(page)] == ["tea", "tea with milk"], lambda: runs(page))
    for number, name in enumerate(("more coffee", "tea again"), 11):
        assert post(own.url, encode(chain(number, name))) == 200
    look.shows(lambda: runs(page)[0]["name"] == "tea again", lambda: runs(page))
    assert len(runs(page)) == 3


# ── what takes long ─────────────────────────────────────────────────────────────────────────────────────────

ONE_AT_A_TIME = """
import sys
from asynctrace.cli import main
from asynctrace.collector.store import _search

_search.SCAN_SECONDS = 0.0
sys.exit(main(["serve", *sys.argv[1:]]))
"""
"""A collector whose searches stop after each run that they read, as others do after a second."""
RUNS = 12
NEEDLE, BEFORE = 9, 4
"""The run that is looked for, and how many the search has read when the test begins to look at it."""


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("slow"), program=("-c", ONE_AT_A_TIME)) as collector:
        for number in range(1, RUNS + 1):
            trace = Trace(number, just_now() - number * 10**9)
            for part in range(100):
                text = "a needle in here" if number == NEEDLE and part == 50 else f"hay {part}"
                trace.add(Span(f"run {number}" if not part else "part", part, 10, 0 if part else None, input=text))
            assert post(collector.url, encode(trace)) == 200
        yield collector


class Gate:
    """Lets a page's requests for lists through up to the `BEFORE`th; the rest when it is opened."""

    def __init__(self, look: Look) -> None:
        self.passed = 0
        self._held: list[Any] = []
        self._is_open = False
        look.page.route(re.compile(r"/api/v1/traces\?q="), self._met)

    def _met(self, route: Any) -> None:
        if self.passed < BEFORE or self._is_open:
            self.passed += 1
            route.continue_()
        else:
            self._held.append(route)

    @property
    def holds(self) -> int:
        return len(self._held)

    def open(self) -> None:
        """Let those go that wait, and all later ones."""
        self._is_open = True
        while self._held:
            self.release()

    def release(self, which: int = 0) -> None:
        """Let one of those go that wait, the one that has waited longest or another."""
        self.passed += 1
        self._held.pop(which).continue_()


def search(look: Look, url: str, query: str) -> Gate:
    """A page on its way through the runs. Of what it wants to hear the collector learns nothing: the page would begin the
    search anew at an answer, however far it is by then."""
    look.page.add_init_script("WebSocket.prototype.send = () => {};")
    look.page.goto(url)
    look.ready()
    gate = Gate(look)
    look.page.fill("[role=combobox]", query)
    look.page.keyboard.press("Enter")
    look.shows(lambda: gate.holds == 1, lambda: (gate.passed, gate.holds))
    return gate


def said(look: Look) -> str:
    return "".join(look.page.locator(".searching").all_inner_texts()).replace("\u202f", "")


def is_searching(look: Look) -> bool:
    return look.page.locator(".searching").count() == 1


def check_progress(look: Look, url: str, photograph: Callable[..., None] = lambda *_: None) -> None:
    """How far a search is; stopped, it asks for no more; then it goes on to what was looked for, and to the end."""
    gate = search(look, url, "text:needle")
    look.shows(lambda: f"{100 * BEFORE} of {100 * RUNS} spans read" in said(look), lambda: said(look))
    assert look.page.locator(".searching progress").get_attribute("value") == str(100 * BEFORE)
    photograph(look.page, "searching-light")
    look.page.get_by_role("button", name="Stop").click()
    look.shows(lambda: "No match so far" in said(look))
    gate.release()
    look.shows(lambda: f"{100 * (BEFORE + 1)} of" in said(look))
    heeded(look.page)
    assert (gate.passed, gate.holds) == (BEFORE + 1, 0)
    look.page.get_by_role("button", name="Search on").click()
    look.shows(lambda: gate.holds == 1)
    gate.open()
    look.shows(lambda: [run["name"] for run in runs(look.page)] == [f"run {NEEDLE}"], lambda: runs(look.page))
    look.shows(lambda: gate.passed >= RUNS and not is_searching(look), lambda: said(look))


def test_a_search_that_takes_long_says_how_far_it_is_and_can_be_stopped(
    slow: Served, looking: Callable[..., Look], photograph: Callable[..., None]
) -> None:
    check_progress(looking("about:blank"), slow.url, photograph)


def check_change(look: Look, url: str, photograph: Callable[..., None] = lambda *_: None) -> None:
    """Another query ends the search: its late answers are nobody's."""
    gate = search(look, url, "text:hay")
    look.shows(lambda: is_searching(look) and len(runs(look.page)) == BEFORE)
    photograph(look.page, "searching-list-dark")
    look.page.fill("[role=combobox]", 'name:"run 2"')
    look.page.keyboard.press("Enter")
    look.shows(lambda: gate.holds == 2)
    gate.release(-1)
    look.shows(lambda: [run["name"] for run in runs(look.page)] == ["run 2"], lambda: runs(look.page))
    with look.page.expect_response(re.compile("q=text")):
        gate.open()
    heeded(look.page)
    assert [run["name"] for run in runs(look.page)] == ["run 2"]
    assert not is_searching(look)


def test_another_query_ends_a_search_that_takes_long(
    slow: Served, looking: Callable[..., Look], photograph: Callable[..., None]
) -> None:
    check_change(looking("about:blank", color_scheme="dark"), slow.url, photograph)


@pytest.mark.parametrize(
    ("check", "changed"),
    [
        pytest.param(check_progress, ("this.read += scanned ?? 0;", ""), id="nothing is counted"),
        pytest.param(check_progress, ("this.stopped = true;", ""), id="it does not stop"),
        pytest.param(check_progress, ("this.stopped = false;\n    this.next();", ""), id="it does not go on"),
        pytest.param(check_change, ("const turn = ++this.turn;", "const { turn } = this;"), id="late answers"),
    ],
)
def test_a_search_that_leaves_one_in_the_dark_is_noticed(
    check: Callable[[Look, str], None], changed: tuple[str, str], slow: Served, looking: Callable[..., Look]
) -> None:
    look = looking("about:blank", changed=("screens/run-list.js", *changed))
    with pytest.raises(AssertionError):
        check(look, slow.url)


TIMES = """() => performance.getEntriesByType('resource').filter(one => one.name.includes('/api/v1/traces?q='))
    .map(one => one.duration / 1000)"""


@pytest.mark.long
def test_a_million_spans_are_searched_soon(
    million: Served, looking: Callable[..., Look], slack: float, photograph: Callable[..., None]
) -> None:
    look = looking(million.url)
    page = look.ready()
    page.locator(".connection.live").wait_for()
    seen: set[str] = set()
    took: dict[str, float] = {}
    for query in ("attr.order.id=700-123", "text:needle"):
        page.fill("[role=combobox]", query)
        page.evaluate("() => performance.clearResourceTimings()")
        page.keyboard.press("Enter")
        wanted = ["run 700"] if query.startswith("attr") else ["run 500"]
        look.shows(
            lambda wanted=wanted: seen.add(said(look)) or [run["name"] for run in runs(page)] == wanted, lambda: seen
        )
        look.shows(lambda: not is_searching(look) and page.get_attribute(".run-grid", "aria-busy") == "false")
        took[query] = sum(page.evaluate(TIMES))
    print(took, sorted(seen))
    assert took["attr.order.id=700-123"] < 0.2 * slack
    assert took["text:needle"] < 3.0 * slack
    assert took["text:needle"] < 1.0 or any("of 1000000 spans read" in one for one in seen)


def check_completion(look: Look) -> None:
    page = look.ready()
    page.locator("[role=combobox]").press_sequentially("serv")
    look.shows(lambda: "service:" in page.locator("[role=listbox]").first.inner_text())
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    with page.expect_response(re.compile("key=service&prefix=work&")):  # what a letter less asked for is late
        page.keyboard.type("work")
    heeded(page)
    look.shows(
        lambda: page.locator("[role=option]").count() == 1, lambda: page.locator("[role=listbox]").first.inner_text()
    )
    assert page.locator("[role=option]").inner_text().split()[0:2] == ["workshop", "of"]
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    assert page.locator("[role=combobox]").input_value() == 'service:"workshop of mine" '
    look.shows(lambda: [run["name"] for run in runs(page)] == ["mine"], lambda: runs(page))


def test_keys_and_values_are_completed(
    own: Served, looking: Callable[..., Look], photograph: Callable[..., None]
) -> None:
    for number, service in enumerate(("workshop of mine", "shop"), 1):
        trace = chain(number, service.split()[-1])
        trace.service = service
        assert post(own.url, encode(trace)) == 200
    check_completion(looking(own.url))
    look = looking(own.url)
    look.ready()
    look.page.locator("[role=combobox]").press_sequentially("s")
    look.page.locator("[role=option]").first.wait_for()
    photograph(look.page, "completion-light")


def check_link(look: Look, link: str, again: Callable[[str], Look]) -> None:
    page = look.ready()
    page.fill("[role=combobox]", "type:llm")
    page.keyboard.press("Enter")
    page.locator(".row.match").first.wait_for()
    page.get_by_label("matches only").check()
    page.locator(".row.match").nth(1).click()
    page.get_by_role("tab", name="Attributes").click()
    page.get_by_role("button", name="Zoom in").click()
    look.shows(lambda: "span=" in page.url and "from=" in page.url)
    other = again(page.url)
    other.patience = look.patience
    fresh = other.ready()
    other.shows(lambda: fresh.locator(".tabs").count() == 1)
    other.shows(lambda: rows(fresh) == rows(page), lambda: (rows(fresh), rows(page)))
    assert fresh.locator("[role=combobox]").input_value() == "type:llm"
    assert fresh.locator("[role=tab][aria-selected=true]").inner_text() == "Attributes"
    assert fresh.locator(".zoomed").inner_text() == page.locator(".zoomed").inner_text()


def test_a_link_restores_the_view_in_a_fresh_browser(
    sent: Callable[[Trace], str], looking: Callable[..., Look]
) -> None:
    link = sent(agent(0xF4, just_now(), seed=3))
    check_link(looking(link), link, looking)


def test_an_unknown_trace_appears_when_it_arrives(
    shared: Served, looking: Callable[..., Look], photograph: Callable[..., None]
) -> None:
    trace = chain(0xF41, "late", "comer")
    look = looking(f"{shared.url}/trace/{trace.id}")
    look.page.get_by_role("heading", name="Waiting for the trace").wait_for()
    photograph(look.page, "waiting-light")
    assert post(shared.url, encode(trace)) == 200
    look.shows(lambda: tree(look.page) == ["late", "  comer"])


FAILING = """
const asked = window.fetch;
window.isDown = true;
window.fetch = (url, ...rest) => window.isDown && String(url).includes("/api/v1/traces?")
    ? Promise.resolve(new Response('{"error": "the store does not answer", "at": null}', { status: 503 }))
    : asked(url, ...rest);
"""
TRY_AGAIN = """() => {
    const button = [...document.querySelectorAll("button")].find((button) => button.textContent === "Try again");
    if (!button) return false;
    window.isDown = false;
    button.click();
    return true;
}"""
"""In one go: a list that its live news read again in between would have no such button any more."""


def test_an_error_is_told_and_one_can_try_again(
    shared: Served, sent: Callable[[Trace], str], looking: Callable[..., Look], photograph: Callable[..., None]
) -> None:
    sent(chain(0xF42, "there"))
    look = looking("about:blank", color_scheme="dark")
    look.page.add_init_script(FAILING)
    look.page.goto(shared.url)
    look.page.get_by_text("the store does not answer").wait_for()
    photograph(look.page, "failed-dark")
    assert look.page.locator(".run:not(.head)").count() == 0
    look.page.wait_for_function(TRY_AGAIN)
    look.page.locator(".run:not(.head)").first.wait_for()


@pytest.mark.parametrize("path", ["/trace/zz", "/trace/%ff", "/trace/%00", "/diff", "/diff?a=x&b=y"])
def test_an_address_that_means_no_trace_says_so(path: str, shared: Served, looking: Callable[..., Look]) -> None:
    look = looking(f"{shared.url}{path}")
    look.page.locator("[role=alert]").filter(has_text="a trace id has 32 hex digits").wait_for()
    assert not [said for said in look.complaints if "Failed to load resource" not in said]


def test_an_empty_collector_says_how_to_send(
    own: Served, looking: Callable[..., Look], photograph: Callable[..., None]
) -> None:
    for scheme in ("light", "dark"):
        page = looking(own.url, color_scheme=scheme).ready()
        assert f"OTEL_EXPORTER_OTLP_ENDPOINT={own.url}" in page.locator(".welcome").inner_text()
        photograph(page, f"empty-{scheme}")
    assert post(own.url, encode(chain(1, "the first"))) == 200
    page.locator(".run:not(.head)").first.wait_for()
    assert page.locator(".welcome").count() == 0


def check_snippet(look: Look, token: str) -> None:
    """The program that an empty collector shows sends a run there."""
    page = look.page
    shell, program = "", ""

    def is_told() -> bool:
        """Both at once: when the collector listens, the list is read anew, and what is shown in its place begins anew."""
        nonlocal shell, program
        shell, program = [*page.locator(".welcome pre").all_inner_texts(), "", ""][:2]
        return "Bearer" in shell

    look.shows(is_told)
    assert 'OTEL_EXPORTER_OTLP_HEADERS="authorization=Bearer%20$ASYNCTRACE_TOKEN"' in shell
    assert "ASYNCTRACE_TOKEN" in program
    environment = {**os.environ, "ASYNCTRACE_TOKEN": token}
    subprocess.run([sys.executable, "-c", program], env=environment, timeout=60, check=True)
    look.shows(lambda: [run["name"] for run in runs(page)] == ["first run"], lambda: runs(page))


def test_an_empty_collector_with_a_token_shows_a_program_that_has_it(
    tmp_path: Path, looking: Callable[..., Look], photograph: Callable[..., None]
) -> None:
    with serving(tmp_path, "--token", "between us") as collector:
        look = looking(f"{collector.url}/?token=between%20us")
        look.page.get_by_text("This collector wants a token").wait_for()
        photograph(look.page, "empty-token-light")
        check_snippet(look, "between us")


def test_a_program_without_the_token_is_noticed(tmp_path: Path, looking: Callable[..., Look]) -> None:
    changed = ("screens/runs.js", "status?.needs_token ? `OTLPExporter", "false ? `OTLPExporter")
    with serving(tmp_path, "--token", "between us") as collector:
        look = looking(f"{collector.url}/?token=between%20us", changed=changed)
        look.patience = PATIENCE  # what notices it waits for nothing
        with pytest.raises(AssertionError, match="'ASYNCTRACE_TOKEN' in"):
            check_snippet(look, "between us")


def test_a_query_that_is_underlined_elsewhere_is_noticed(
    shared: Served, sent: Callable[[Trace], str], looking: Callable[..., Look]
) -> None:
    sent(chain(0xF3, "checkout"))
    look = looking(shared.url, changed=("query/input.js", "const from = Math.min(at, text.length);", "const from = 0;"))
    with pytest.raises(AssertionError):
        check_underline(look)


def test_a_value_that_is_not_quoted_is_noticed(own: Served, looking: Callable[..., Look]) -> None:
    trace = chain(1, "mine")
    trace.service = "workshop of mine"
    assert post(own.url, encode(trace)) == 200
    look = looking(own.url, changed=("query/words.js", "${quote(choice)} `", "${choice} `"))
    with pytest.raises(AssertionError):
        check_completion(look)


def test_a_link_that_forgets_is_noticed(sent: Callable[[Trace], str], looking: Callable[..., Look]) -> None:
    link = sent(agent(0xF4, just_now(), seed=3))
    changed = ("trace/screen.js", "if (parameters.zoom) this.zoom(parameters.zoom, { quietly: true });", "")
    broken = (
        "trace/screen.js",
        "this.zoom(parameters.zoom, { quietly: true });",
        "this.zoom(null, { quietly: true });",
    )

    def again(address: str) -> Look:
        return looking(address, changed=broken)

    look = looking(link, changed=changed)
    with pytest.raises(AssertionError):
        check_link(look, link, again)
