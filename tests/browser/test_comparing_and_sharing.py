"""Two runs beside each other, and a run as a file."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from asynctrace.collector.page import export_page

from ..collector.processes import Served
from .seeing import IMPATIENCE, Look, tree
from .traces import Span, Trace, agent, chain, encode, hour_ago, just_now, post

SECRET = "sk-ant-api03-" + "x7Qw" * 12


def _pair(number: int) -> tuple[Trace, Trace]:
    """The second one asks another question in its second step, fails there, and does one thing more."""
    found = []
    for place, (question, status) in enumerate((("where is the parcel", 0), ("where is the lost parcel", 2))):
        trace = Trace(number + place, hour_ago())
        trace.add(Span("agent", 0, 1000 + 500 * place))
        trace.add(Span("plan", 0, 100, 0))
        used = {"gen_ai.usage.input_tokens": 100 * (place + 1), "gen_ai.usage.cost": 0.01 * (place + 1)}
        trace.add(Span("ask", 100, 200 + 300 * place, 0, "llm", status, used, question))
        if place:
            trace.add(Span("ask again", 700, 100, 0))
        found.append(trace)
    return found[0], found[1]


def check_diff(look: Look) -> None:
    page = look.ready()
    told = page.locator(".divergence").inner_text()
    assert "agent \u203a ask" in told
    legend = page.locator(".legend").inner_text().replace("\n", " ")
    for wanted in ("2 same", "1 changed", "1 only in B"):
        assert wanted in legend
    delta = page.locator("tr.delta").inner_text()
    for wanted in ("+500\u202fms", "+100", "+$0.010"):
        assert wanted in delta
    look.shows(lambda: page.locator(".words ins").count() > 0)
    assert page.locator(".words ins").all_inner_texts() == ["lost "]
    assert page.locator(".words del").count() == 0
    names = page.locator(".diff-row:not(.head):visible .name").all_inner_texts()
    assert names == ["agent", "plan", "ask", "ask again"]


def _diff_of(sent: Callable[[Trace], str], number: int) -> str:
    one, other = _pair(number)
    address = sent(one)
    sent(other)
    return f"{address.partition('/trace/')[0]}/diff?a={one.id}&b={other.id}"


def test_a_diff_tells_the_first_divergence_the_counts_and_the_words(
    sent: Callable[[Trace], str], looking: Callable[..., Look]
) -> None:
    check_diff(looking(_diff_of(sent, 0x61)))


def test_a_run_is_compared_from_its_own_page(sent: Callable[[Trace], str], looking: Callable[..., Look]) -> None:
    sent(chain(0x6110, "compared", "with"))
    look = looking(sent(chain(0x6111, "compared", "without")))
    look.ready()
    look.page.get_by_role("button", name="Diff…").click()
    look.page.locator("dialog .run-choices button").first.click()
    look.page.locator(".divergence").wait_for()
    assert "/diff?a=" in look.page.url


# ── a file ──────────────────────────────────────────────────────────────────────────────────────────────────


def _get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as answer:
        return bytes(answer.read())


def _thousand(number: int) -> Trace:
    trace = Trace(number, hour_ago())
    trace.add(Span("the whole", 0, 5000))
    for seed in range(43):
        below = agent(0, 0, seed=seed)
        first = len(trace.spans)
        for span in below.spans:
            span.parent = 0 if span.parent is None else span.parent + first
            trace.add(span)
    del trace.spans[1000:]
    return trace


def check_file(look: Look) -> None:
    page = look.ready()
    look.shows(lambda: tree(page)[:2] == ["agent.run research", "  step.plan"])
    look.row("db.query").click()
    look.shows(lambda: "TimeoutError" in page.locator("#pane").inner_text())
    page.fill("[role=combobox]", "postgresql")
    page.keyboard.press("Enter")
    look.shows(lambda: page.locator(".matches").inner_text() == "1 match")
    page.keyboard.press("Escape")
    assert not [url for url in look.asked if not url.startswith(("file:", "data:", "blob:"))]
    assert not look.complaints


def test_a_file_shows_tree_detail_and_search_without_a_network(
    shared: Served,
    sent: Callable[[Trace], str],
    looking: Callable[..., Look],
    tmp_path: Path,
    photograph: Callable[..., None],
) -> None:
    trace = agent(0x63, just_now(), seed=3)
    sent(trace)
    file = tmp_path / "trace.html"
    file.write_bytes(_get(f"{shared.url}/api/v1/traces/{trace.id}.html"))
    look = looking(file.as_uri(), offline=True)
    check_file(look)
    photograph(look.page, "file-light")


def test_a_file_of_a_thousand_spans_is_small(shared: Served, sent: Callable[[Trace], str]) -> None:
    trace = _thousand(0x631)
    sent(trace)
    assert len(trace.spans) == 1000
    assert len(_get(f"{shared.url}/api/v1/traces/{trace.id}.html")) <= 350_000


def test_what_a_file_says_cannot_leave_its_place(looking: Callable[..., Look], tmp_path: Path) -> None:
    hostile = "</script><script>window.broken = 1</script><!--"
    skeleton = {
        "trace_id": hostile, "version": 1, "count": 1, "first": 0, "t0_ns": 0, "t0_ms": 0,
        "names": [hostile], "types": [""], "services": [hostile], "endings": ["ok"],
        "name": [0], "type": [0], "service": [0], "ending": [0], "status": [0], "kind": [1], "parent": [-1],
        "start": [0], "duration": [5], "summary": {"name": hostile, "start_ns": 0}, "completeness": {},
    }  # fmt: skip
    span = {"index": 0, "span_id": "1", "attributes": {hostile: hostile}, "input": {"mime": hostile, "text": hostile}}
    file = tmp_path / "hostile.html"
    file.write_bytes(export_page(hostile, json.dumps(skeleton).encode(), [json.dumps(span).encode()]))
    look = looking(file.as_uri())
    page = look.ready()
    page.locator(".row").first.click()
    look.shows(lambda: hostile in page.locator("#pane").inner_text())
    assert page.evaluate("() => window.broken") is None
    assert not look.complaints


def _secret(number: int) -> Trace:
    trace = Trace(number, just_now())
    trace.add(
        Span(
            "login",
            0,
            5,
            None,
            "",
            2,
            {"api_key": SECRET, "note": f"the key is {SECRET}"},
            {"password": SECRET},
            f"Bearer {SECRET}",
        )
    )
    return trace


def check_secret(body: bytes, kind: str, look: Callable[[str], Look], file: Path) -> None:
    if kind.startswith("html"):
        file.write_bytes(body)
        shown = look(file.as_uri())
        page = shown.ready()
        page.locator(".row").first.click()
        page.get_by_role("tab", name="Raw").click()
        shown.shows(lambda: "login" in page.locator("#pane").inner_text())
        body += page.locator("#pane").inner_text().encode()
    assert SECRET.encode() not in body
    assert b"x7Qw" * 12 not in body


@pytest.mark.parametrize("kind", ["html", "otlp.json?redact=1", "md"])
def test_a_secret_is_not_in_what_is_shared(
    kind: str, shared: Served, sent: Callable[[Trace], str], looking: Callable[..., Look], tmp_path: Path
) -> None:
    trace = _secret(0x64)
    sent(trace)
    body = _get(f"{shared.url}/api/v1/traces/{trace.id}.{kind}")
    check_secret(body, kind, looking, tmp_path / "secret.html")


@pytest.mark.parametrize("kind", ["html?redact=0", "otlp.json?redact=0", "md?redact=0"])
def test_a_file_with_its_secrets_is_noticed(
    kind: str, shared: Served, sent: Callable[[Trace], str], looking: Callable[..., Look], tmp_path: Path
) -> None:
    trace = _secret(0x640)
    sent(trace)
    body = _get(f"{shared.url}/api/v1/traces/{trace.id}.{kind}")
    with pytest.raises(AssertionError):
        check_secret(body, kind, looking, tmp_path / "secret.html")


def check_round(look: Look, url: str, trace: Trace, file: Path, changed: Callable[[bytes], bytes] = bytes) -> None:
    page = look.ready()
    before = tree(page)
    file.write_bytes(changed(_get(f"{url}/api/v1/traces/{trace.id}.otlp.json")))
    page.get_by_role("button", name="Share").click()
    page.get_by_role("button", name="Delete the run").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_role("heading", name="Waiting for the first run").wait_for()
    page.set_input_files("input[type=file]", file)
    page.locator(".row").first.wait_for()
    look.shows(lambda: tree(page) == before, lambda: tree(page))
    assert trace.id in page.url


def test_exported_deleted_and_imported_it_is_the_same_tree(
    own: Served, looking: Callable[..., Look], tmp_path: Path
) -> None:
    trace = agent(0x65, just_now(), seed=3)
    assert post(own.url, encode(trace)) == 200
    check_round(looking(f"{own.url}/trace/{trace.id}"), own.url, trace, tmp_path / "trace.otlp.json")


def test_a_file_that_lacks_a_span_is_noticed(own: Served, looking: Callable[..., Look], tmp_path: Path) -> None:
    def lacking(body: bytes) -> bytes:
        request = json.loads(body)
        del request["resourceSpans"][0]["scopeSpans"][0]["spans"][-1]
        return json.dumps(request).encode()

    trace = agent(0x650, just_now(), seed=3)
    assert post(own.url, encode(trace)) == 200
    look = looking(f"{own.url}/trace/{trace.id}")
    look.patience = IMPATIENCE
    with pytest.raises(AssertionError):
        check_round(look, own.url, trace, tmp_path / "trace.otlp.json", lacking)


def test_a_diff_without_words_is_noticed(sent: Callable[[Trace], str], looking: Callable[..., Look]) -> None:
    changed = ("show/words.js", "const middle = shortest(", "const middle = ((a, b) => b.map(same))(")
    look = looking(_diff_of(sent, 0x67), changed=changed)
    with pytest.raises(AssertionError):
        check_diff(look)


def test_a_file_that_asks_elsewhere_is_noticed(
    shared: Served, sent: Callable[[Trace], str], looking: Callable[..., Look], tmp_path: Path
) -> None:
    trace = agent(0x66, just_now(), seed=3)
    sent(trace)
    file = tmp_path / "trace.html"
    body = _get(f"{shared.url}/api/v1/traces/{trace.id}.html")
    file.write_bytes(body.replace(b"<title>", b'<link rel="stylesheet" href="http://127.0.0.2:9/"><title>'))
    look = looking(file.as_uri())
    look.patience = IMPATIENCE
    with pytest.raises(AssertionError):
        check_file(look)
