"""Skeletons, spans, files and comparisons of traces, as `GET /api/v1/…` answers them."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from asynctrace._contracts import AttributeValue, Event, Span, StatusCode
from asynctrace.collector.api import _export
from asynctrace.collector.api._critical_path import critical_path
from asynctrace.collector.api._skeleton import skeleton
from asynctrace.collector.api._view import Whole
from asynctrace.collector.live import OpenSpans
from asynctrace.collector.query._language import LONGEST_QUERY
from asynctrace.collector.store import RunSummary
from asynctrace.tracing import Masker
from asynctrace.wire import ResourceSpans, parse_json_request

from ..traffic import START, checkout, group, json_body, protobuf, received, span
from .asking import Json, Reader, collecting

pytestmark = pytest.mark.anyio

TRACE = 1
ID = f"{TRACE:032x}"
MS = 1_000_000


def notice(
    number: int, *, parent: int = 0, name: str = "agent", trace: int = TRACE, **attributes: AttributeValue
) -> Span:
    said = {"asynctrace.state": "open", **attributes}
    return span(trace, number, parent=parent, name=name, duration=0, status=StatusCode.UNSET, attributes=said)


def tree(columns: Json) -> list[str]:
    """A skeleton as lines: name, duration, indented by depth."""
    depth: dict[int, int] = {}
    lines = []
    for index in range(columns["count"]):
        parent = columns["parent"][index]
        depth[index] = depth.get(parent, -1) + 1
        lines.append(f"{'  ' * depth[index]}{columns['names'][columns['name'][index]]} {columns['duration'][index]}")
    return lines


# ── skeletons ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_skeleton_has_a_place_for_each_span_and_no_input_output_or_id(tmp_path: Path) -> None:
    async with collecting(tmp_path, [checkout(TRACE)]) as reader:
        shown = await reader.get(f"/traces/{ID}/skeleton")
        text = await reader.text(f"/traces/{ID}/skeleton")
    assert tree(shown) == ["checkout 1200000", "  retrieve 12000", "  pay 812000"]
    assert shown["start"] == [0, 1000, 19000]
    assert (shown["status"], shown["t0_ns"]) == ([1, 1, 2], START)
    assert [shown["endings"][number] for number in shown["ending"]] == ["ok", "ok", "error"]
    assert [shown["types"][number] for number in shown["type"]] == ["", "retriever", ""]
    assert shown["logs"] == {"1": 1}
    assert shown["completeness"]["orphaned"] == 0
    columns = {key: value for key, value in shown.items() if key != "summary"}
    assert "tea" not in msgspec.json.encode(columns).decode()
    assert f"{2:016x}" not in text


async def test_children_before_parents_and_a_parent_that_never_comes(tmp_path: Path) -> None:
    async with collecting(tmp_path, [group(span(TRACE, 3, parent=2, name="child"))]) as reader:
        first = await reader.get(f"/traces/{ID}/skeleton")
        assert (first["parent"], first["missing"]) == ([-2], {"0": f"{2:016x}"})
        assert first["completeness"]["orphaned"] == 1
        await reader.send(group(span(TRACE, 2, name="parent")))
        second = await reader.get(f"/traces/{ID}/skeleton", after="1")
        assert (second["first"], second["parent"], second["moved"]) == (1, [-1], {"0": 1})
        assert (await reader.get(f"/traces/{ID}/skeleton"))["parent"] == [1, -1]


async def test_a_child_of_another_clock_is_flagged(tmp_path: Path) -> None:
    spans = [span(TRACE, 1, start=50 * MS, duration=100 * MS), span(TRACE, 2, parent=1, start=10 * MS)]
    async with collecting(tmp_path, [group(*spans)]) as reader:
        shown = await reader.get(f"/traces/{ID}/skeleton")
    assert shown["flags"] == {"1": "skewed"}
    assert shown["start"] == [40_000, -40_000]


async def check_numbers_stay(directory: Path) -> None:
    async with collecting(directory) as reader:
        await reader.send(group(span(TRACE, 5, parent=1, name="before")))
        await reader.send(group(notice(1, **{"input.value": "go"}), notice(2, parent=1, name="step")))
        first = await reader.get(f"/traces/{ID}/skeleton")
        assert [first["names"][number] for number in first["name"]] == ["before", "agent", "step"]
        assert (first["duration"][1:], first["parent"]) == ([-1, -1], [1, -1, 1])
        assert first["summary"]["open"] == 2
        await reader.send(group(span(TRACE, 4, parent=2, name="leaf"), span(TRACE, 2, parent=1, name="step")))
        second = await reader.get(f"/traces/{ID}/skeleton")
        assert [second["names"][number] for number in second["name"]] == ["before", "agent", "step", "leaf"]
        assert second["duration"] == [1000, -1, 1000, 1000]
        named = [(await reader.get(f"/traces/{ID}/span/@{index}"))["name"] for index in range(4)]
        assert named == ["before", "agent", "step", "leaf"]
        assert (second["order"], second["version"] > first["version"]) == (first["order"], True)
        later = await reader.get(f"/traces/{ID}/skeleton", after="3", order=str(first["order"]))
        assert (later["first"], later["name"], later["names"]) == (3, second["name"][3:], second["names"])
        other = await reader.get(f"/traces/{ID}/skeleton", after="3", order="12345")
        assert other["first"] == 0
        await reader.send(group(span(TRACE, 1, name="agent", duration=7 * MS)))
        last = await reader.get(f"/traces/{ID}/skeleton")
        assert last["duration"][1] == 7000
        assert last["summary"]["open"] == 0
        assert last["summary"]["duration"] == 0.007


async def test_numbers_stay_while_spans_come_open_and_end(tmp_path: Path) -> None:
    await check_numbers_stay(tmp_path)


async def test_a_trace_in_the_order_of_the_store_is_caught(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OpenSpans, "order_of", lambda self, trace_id: None)
    with pytest.raises(AssertionError):
        await check_numbers_stay(tmp_path)


# ── one span ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_span_has_everything(tmp_path: Path) -> None:
    attributes: dict[str, AttributeValue] = {
        "input.value": '{"q": "tea"}',
        "output.value": "<b>no</b>",
        "output.mime_type": "text/html",
        "number": 2**53 + 1,
        "bytes": b"\x00\xff",
        "nothing": float("nan"),
        "list": [1, "a", {"k": None}],
    }
    told = {"exception.type": "ValueError", "exception.message": "no tea", "exception.stacktrace": "at …"}
    events = (Event(time_ns=START, name="exception", attributes=told),)
    made = span(TRACE, 2, parent=1, name="pay", status=StatusCode.ERROR, attributes=attributes, events=events)
    async with collecting(tmp_path, [group(span(TRACE, 1), made)]) as reader:
        by_id = await reader.get(f"/traces/{ID}/span/{2:016x}")
        by_index = await reader.get(f"/traces/{ID}/span/@1")
    assert by_index == by_id | {"index": 1}
    assert by_id["input"] == {"mime": "application/json", "text": '{"q": "tea"}', "bytes": 12}
    assert by_id["output"] == {"mime": "text/html", "text": "<b>no</b>", "bytes": 9}
    assert by_id["exception"] == {"type": "ValueError", "message": "no tea", "stacktrace": "at …"}
    assert by_id["attributes"]["number"] == 2**53 + 1
    assert by_id["attributes"]["nothing"] == "nan"
    assert by_id["attributes"]["bytes"] == "AP8="
    assert (by_id["status"], by_id["kind"], by_id["ending"]) == ("error", "unspecified", "error")
    assert by_id["resource"] == {"service.name": "shop"}


async def test_an_open_span_has_what_is_known(tmp_path: Path) -> None:
    async with collecting(tmp_path, [group(notice(1, **{"input.value": "go"}))]) as reader:
        shown = await reader.get(f"/traces/{ID}/span/@0")
        assert (shown["ending"], shown["duration"], shown["input"]["text"]) == ("open", None, "go")


@pytest.mark.parametrize(
    ("path", "status", "said"),
    [
        ("/traces/xyz/skeleton", 400, "32 hex digits"),
        (f"/traces/{2:032x}/skeleton", 404, "no trace"),
        (f"/traces/{2:032x}", 404, "no trace"),
        (f"/traces/{ID}/span/@9", 404, "has no span 9"),
        (f"/traces/{ID}/span/@x", 400, "an index"),
        (f"/traces/{ID}/span/12", 400, "16 hex digits"),
        (f"/traces/{ID}/span/{9:016x}", 404, "no span"),
        (f"/diff?a={ID}&b={2:032x}", 404, "no trace"),
        ("/traces?limit=0", 400, "limit"),
        ("/traces?cursor=x", 400, "cursor"),
        ("/sessions?q=color:x", 400, "color is no key"),
        ("/stats?q=color:x", 400, "color is no key"),
        ("/stats?by=color", 400, "color"),
        ("/stats?since=soon", 400, "an age"),
    ],
)
async def test_what_cannot_be_answered_says_why(tmp_path: Path, path: str, status: int, said: str) -> None:
    async with collecting(tmp_path, [checkout(TRACE)]) as reader:
        assert said in (await reader.get(path, status))["error"]


@pytest.mark.parametrize("path", ["/traces", f"/traces/{ID}/find", "/tail"])
async def test_a_malformed_query_is_told_with_its_place(tmp_path: Path, path: str) -> None:
    async with collecting(tmp_path, [checkout(TRACE)]) as reader:
        answer = await reader.get(path, 400, q="tea is:hot")
    assert (answer["at"], answer["end"]) == (7, 10)


async def test_the_longest_query_is_asked_in_any_script(tmp_path: Path) -> None:
    async with collecting(tmp_path, [checkout(TRACE)]) as reader:
        assert (await reader.get("/traces", q="\U0001fad6" * LONGEST_QUERY))["traces"] == []
        answer = await reader.get("/traces", 400, q="\U0001fad6" * (LONGEST_QUERY + 1))
    assert str(LONGEST_QUERY) in answer["error"]


# ── inside a trace ──────────────────────────────────────────────────────────────────────────────────────────


async def test_spans_are_found_by_what_they_hold(tmp_path: Path) -> None:
    async with collecting(tmp_path, [checkout(TRACE)]) as reader:
        for query, expected in (("status:error", [2]), ("input:tea", [1]), ("dur>1s", [0]), ("nothing", [])):
            assert (await reader.get(f"/traces/{ID}/find", q=query))["matches"] == expected


def whole_of(*spans: Span) -> Whole:
    made = received(group(*spans))
    start = min(each.start_ns for each in spans)
    fields = {"name": "", "service": "", "end_ns": 0, "duration": None, "errors": 0, "open": 0, "ending": "ok"}
    summary = RunSummary(trace_id=ID, short_id=ID[:8], start_ns=start, spans=len(spans), **fields)
    return Whole(summary=summary, origins=made.origins, rows=made.rows, logs=[], version=1, order=0)


def test_the_critical_path_of_a_gather_is_the_branch_that_was_awaited_last() -> None:
    check_the_path_of_a_gather(critical_path)


def test_a_path_along_the_first_child_is_caught() -> None:
    def first_children(whole: Whole, now_ns: int) -> list[dict[str, int]]:
        return critical_path(whole, now_ns)[:2] + critical_path(whole, now_ns)[:1]

    with pytest.raises(AssertionError):
        check_the_path_of_a_gather(first_children)


def check_the_path_of_a_gather(critical_path: Callable[[Whole, int], list[Json]]) -> None:
    whole = whole_of(
        span(TRACE, 1, name="root", duration=100 * MS),
        span(TRACE, 2, parent=1, name="plan", duration=20 * MS),
        span(TRACE, 3, parent=1, name="quick branch", start=20 * MS, duration=30 * MS),
        span(TRACE, 4, parent=1, name="slow branch", start=20 * MS, duration=60 * MS),
        span(TRACE, 5, parent=4, name="inside", start=30 * MS, duration=50 * MS),
        span(TRACE, 6, parent=1, name="left behind", start=25 * MS, duration=500 * MS),
    )
    path = critical_path(whole, START + 10**9)
    assert [whole.rows[part["index"]].name for part in path] == ["root", "plan", "slow branch", "inside"]
    assert path[2] == {"index": 3, "start": 20_000, "end": 80_000}


def test_the_critical_path_of_odd_traces_ends() -> None:
    assert critical_path(whole_of(span(TRACE, 2, parent=3), span(TRACE, 3, parent=2)), START)
    deep = [span(TRACE, number, parent=number - 1, duration=10**9) for number in range(1, 3000)]
    assert len(critical_path(whole_of(*deep), START)) == 2999


def test_a_large_skeleton_is_small() -> None:
    spans = (span(TRACE, n, parent=n // 2, name=f"step {n % 50}", start=n * MS) for n in range(1, 10_001))
    packed = gzip.compress(msgspec.json.encode(skeleton(whole_of(*spans))), 6)
    assert len(packed) < 60_000


# ── comparing ───────────────────────────────────────────────────────────────────────────────────────────────


def run(trace: int, *, answer: str = "42", extra: bool = False, tokens: int = 100) -> ResourceSpans:
    said = {"output.value": answer, "gen_ai.usage.output_tokens": tokens, "gen_ai.usage.cost": tokens / 1000}
    spans = [
        span(trace, 1, name="agent", duration=100 * MS),
        span(trace, 2, parent=1, name="plan", start=MS),
        span(trace, 3, parent=1, name="chat", start=2 * MS, duration=tokens * MS, attributes=said),
    ]
    if extra:
        spans.append(span(trace, 4, parent=3, name="retry", start=3 * MS))
    return group(*spans)


async def test_a_diff_names_the_first_divergence_and_the_sums(tmp_path: Path) -> None:
    async with collecting(tmp_path, [run(1), run(2, answer="43", extra=True, tokens=150)]) as reader:
        found = await reader.get("/diff", a=f"{1:032x}", b=f"{2:032x}")
    assert found["first"] == {"path": ["agent", "chat"], "a": 2, "b": 2, "what": "output differs"}
    assert found["counts"] == {"same": 2, "changed": 1, "only_a": 0, "only_b": 1}
    states = [(row["name"], row["depth"], row["state"], row["a"], row["b"]) for row in found["rows"]]
    assert states == [
        ("agent", 0, "same", 0, 0),
        ("plan", 1, "same", 1, 1),
        ("chat", 1, "changed", 2, 2),
        ("retry", 2, "only_b", None, 3),
    ]
    assert found["rows"][2]["duration"] == [0.1, 0.15]
    assert found["totals"]["tokens"] == [100, 150]
    assert found["totals"]["cost"] == [0.1, 0.15]


async def test_equal_traces_do_not_differ(tmp_path: Path) -> None:
    async with collecting(tmp_path, [run(1), run(2)]) as reader:
        found = await reader.get("/diff", a=f"{1:032x}", b=f"{2:032x}")
    assert (found["first"], found["counts"]["same"]) == (None, 3)


# ── files ───────────────────────────────────────────────────────────────────────────────────────────────────


async def rebuilt(reader: Reader) -> Json:
    shown = await reader.get(f"/traces/{ID}/skeleton")
    details = [await reader.get(f"/traces/{ID}/span/@{index}") for index in range(shown["count"])]
    return tree(shown), details


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
async def test_export_delete_import_gives_the_same_tree(tmp_path: Path, compress: type[bytes]) -> None:
    async with collecting(tmp_path, [checkout(TRACE)]) as reader:
        before = await rebuilt(reader)
        body = (await reader.text(f"/traces/{ID}.otlp.json")).encode()
        assert parse_json_request(body) == [checkout(TRACE)]
        for _ in range(2):  # the same file twice: deleted in between, it comes again
            assert (await reader.ask("DELETE", f"/traces/{ID}"))["deleted"]
            await reader.get(f"/traces/{ID}/skeleton", 404)
            answer = await reader.ask("POST", "/import", body=compress(body))
            assert answer == {"traces": [ID], "spans": 3, "logs": 0, "rejected": 0}
            assert await rebuilt(reader) == before


async def test_protobuf_is_imported_too_and_what_is_no_trace_refused(tmp_path: Path) -> None:
    async with collecting(tmp_path) as reader:
        for body in (protobuf([checkout(TRACE)]), gzip.compress(protobuf([checkout(2)])), json_body([checkout(3)])):
            assert (await reader.ask("POST", "/import", body=body))["spans"] == 3
        assert (await reader.get("/status"))["store"]["traces"] == 3
        for wrong in (b"{}}", b"\xff\xff", gzip.compress(b"x")[:-4]):
            assert "error" in await reader.ask("POST", "/import", 400, body=wrong)


SECRET = "sk-ant-api03-" + "Zx9" * 20


@pytest.mark.parametrize("kind", ["otlp.json", "md", "html"])
async def test_a_redacted_file_does_not_hold_the_secret(tmp_path: Path, kind: str) -> None:
    await check_no_secret_leaves(tmp_path, kind)


@pytest.mark.parametrize("kind", ["otlp.json", "md", "html"])
async def test_a_file_whose_json_texts_are_not_looked_into_is_caught(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_export, "_json_or_none", lambda text: None)
    monkeypatch.setattr(Masker, "mask_leaf", lambda self, key, text: text)
    with pytest.raises(AssertionError):
        await check_no_secret_leaves(tmp_path, kind)


async def check_no_secret_leaves(tmp_path: Path, kind: str) -> None:
    held = {
        "input.value": msgspec.json.encode({"headers": [{"authorization": SECRET}], "q": f"use {SECRET}"}).decode(),
        "password": "hunter2",
        "tokens": 7,
        "nested": {"api_key": SECRET, "deep": [{"secret": "hunter2"}]},
    }
    events = (Event(time_ns=START, name="log", attributes={"text": f"Bearer {SECRET}"}),)
    made = span(TRACE, 1, name="call", attributes=held, events=events)
    async with collecting(tmp_path, [group(made)]) as reader:
        plain = await reader.text(f"/traces/{ID}.{kind}", redact="0")
        redacted = await reader.text(f"/traces/{ID}.{kind}", redact="1")
        unasked = await reader.text(f"/traces/{ID}.{kind}")
        assert unasked == (plain if kind == "otlp.json" else redacted)  # what people read is not what programs read
        if kind == "html":
            plain, redacted = _unpacked(plain), _unpacked(redacted)
        assert SECRET in plain
        assert SECRET not in redacted
        assert "hunter2" not in redacted
        assert "[masked]" in redacted
        assert "call" in redacted


def _unpacked(page: str) -> str:
    import base64
    import re

    found = re.search(r'<script id="trace"[^>]*>\s*([A-Za-z0-9+/=]+)\s*</script>', page)
    assert found is not None
    return gzip.decompress(base64.b64decode(found[1])).decode()


async def test_a_page_as_a_file_holds_the_trace(tmp_path: Path) -> None:
    async with collecting(tmp_path, [checkout(TRACE)]) as reader:
        held = msgspec.json.decode(_unpacked(await reader.text(f"/traces/{ID}.html")))
        assert tree(held["skeleton"]) == tree(await reader.get(f"/traces/{ID}/skeleton"))
        assert [each["name"] for each in held["spans"]] == ["checkout", "retrieve", "pay"]
        assert held["critical"]["path"][0]["index"] == 0


# ── the rest ────────────────────────────────────────────────────────────────────────────────────────────────


async def test_pins_values_sessions_and_numbers(tmp_path: Path) -> None:
    said = {"session.id": "s-1", "user.id": "u", "http.route": "/pay"}
    async with collecting(tmp_path, [checkout(TRACE), group(span(2, 1, name="chat", attributes=said))]) as reader:
        assert (await reader.ask("PUT", f"/pins/{ID}"))["pinned"]
        assert (await reader.get(f"/traces/{ID}"))["pinned"]
        assert not (await reader.ask("DELETE", f"/pins/{ID}"))["pinned"]
        await reader.ask("PUT", f"/pins/{9:032x}", 404)
        names = await reader.get("/values", key="name", prefix="ch")
        assert {each["value"] for each in names["values"]} == {"chat", "checkout"}
        assert "/pay" in str(await reader.get("/values", key="attr.http.route"))
        sessions = (await reader.get("/sessions", q="session:s*"))["sessions"]
        assert [each["session"] for each in sessions] == ["s-1"]
        rows = (await reader.get("/stats", by="name"))["rows"]
        assert {row["key"] for row in rows} >= {"chat", "checkout"}
        status = await reader.get("/status")
        assert status["store"]["spans"] == 4
        assert status["receiving"]["spans"] == 4


async def test_pages_follow_one_another_with_open_traces_among_them(tmp_path: Path) -> None:
    stored = [group(span(n, 1, start=n * 10**9)) for n in range(1, 8)]
    opened = [group(notice(1, trace=n)) for n in (20, 21)]
    async with collecting(tmp_path, [*stored, *opened]) as reader:
        seen: list[str] = []
        cursor: dict[str, str] = {}
        while True:
            page = await reader.get("/traces", limit="3", **cursor)
            seen += [trace["trace_id"] for trace in page["traces"]]
            if page["cursor"] is None:
                break
            cursor = {"cursor": page["cursor"]}
    assert sorted(seen) == sorted(f"{n:032x}" for n in (*range(1, 8), 20, 21))
    assert len(seen) == len(set(seen))


async def test_a_search_that_has_found_nothing_yet_goes_on_and_open_traces_keep_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asynctrace.collector.store._search.SCAN_SECONDS", 0.0)  # each page ends after its first trace
    wanted = {"input.value": "needle"}
    stored = [span(n, start=n * 10**9, attributes=wanted if n in (2, 5) else None) for n in range(1, 8)]
    is_open = {"asynctrace.state": "open", **wanted}
    opened = span(20, start=3 * 10**9, duration=0, status=StatusCode.UNSET, attributes=is_open)
    async with collecting(tmp_path, [*map(group, stored), group(opened)]) as reader:
        seen: list[list[int]] = []
        cursor: dict[str, str] = {}
        while not seen or cursor:
            page = await reader.get("/traces", q="input:needle", **cursor)
            seen.append([int(trace["trace_id"], 16) for trace in page["traces"]])
            cursor = {"cursor": page["cursor"]} if page["cursor"] else {}
    assert seen[:2] == [[], []]
    assert [number for page in seen for number in page] == [5, 20, 2]
