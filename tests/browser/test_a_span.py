"""One span: its panes, what SDKs wrote in it, and that nothing in it is anything but text."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from ..collector.processes import Served
from .conversations import ANSWER, CONVERSATIONS, QUESTION, RESULT, SYSTEM, TOKENS
from .seeing import Look, rows
from .traces import STACK, Span, Trace, agent, encode, just_now, post

HOSTILE = "<script>window.broken = 1</script><img src=x onerror='window.broken = 2'>"


def _one(number: int, **fields: Any) -> Trace:
    trace = Trace(number, just_now())
    trace.add(Span(fields.pop("name", "one"), 0, 100, **fields))
    return trace


def _open(look: Look, name: str = "one") -> None:
    look.ready()
    look.row(name).click()
    look.page.locator(".tabs").wait_for()
    look.page.locator(".pane > :not(.loading)").first.wait_for()


def _pane(look: Look, name: str) -> str:
    look.page.get_by_role("tab", name=name).click()
    return look.page.locator("#pane").inner_text()


# ── what is asked for ───────────────────────────────────────────────────────────────────────────────────────


def check_asked(look: Look, address: str) -> None:
    bodies: dict[str, str] = {}

    def keep(response: Any) -> None:
        if "/skeleton" in response.url or "/span/" in response.url:
            bodies[unquote(response.url.rpartition("/")[2])] = response.text()

    look.page.on("requestfinished", lambda request: keep(request.response()))
    look.page.goto(address)
    look.ready()
    look.page.wait_for_load_state("networkidle")
    look.shows(lambda: list(bodies) == ["skeleton"], lambda: list(bodies))
    columns = {key: value for key, value in json.loads(bodies["skeleton"]).items() if key != "summary"}
    assert "secret of the first" not in json.dumps(columns)
    look.row("agent.run research").click()
    look.page.locator(".pane .text").first.wait_for()
    look.page.wait_for_load_state("networkidle")
    look.shows(lambda: sorted(bodies) == ["@0", "skeleton"], lambda: list(bodies))
    assert "secret of the first" in bodies["@0"]


def _with_input(number: int) -> Trace:
    trace = agent(number, just_now(), seed=3)
    trace.spans[0].input = "the secret of the first span"
    return trace


def test_a_click_asks_for_that_span_and_the_skeleton_holds_no_input(
    sent: Callable[[Trace], str], looking: Callable[..., Look]
) -> None:
    check_asked(looking("about:blank"), sent(_with_input(0xE1)))


def test_a_page_that_asks_for_every_span_is_noticed(sent: Callable[[Trace], str], looking: Callable[..., Look]) -> None:
    changed = ("trace/screen.js", "this.minimap = new Minimap", "this.fetch(1); this.minimap = new Minimap")
    with pytest.raises(AssertionError):
        check_asked(looking("about:blank", changed=changed), sent(_with_input(0xE11)))


def test_a_skeleton_that_holds_inputs_is_noticed(sent: Callable[[Trace], str], looking: Callable[..., Look]) -> None:
    look = looking("about:blank")

    def answer(route: Any) -> None:
        response = route.fetch()
        route.fulfill(response=response, json={**response.json(), "input": ["the secret of the first span"]})

    look.page.route("**/skeleton", answer)
    with pytest.raises(AssertionError):
        check_asked(look, sent(_with_input(0xE12)))


# ── panes ───────────────────────────────────────────────────────────────────────────────────────────────────


def check_panes(look: Look) -> None:
    _open(look)
    assert "refund" in _pane(look, "Input")
    assert '"approved"' in _pane(look, "Raw") or "approved" in _pane(look, "Raw")
    assert "approved" in _pane(look, "Output")
    logs = _pane(look, "Logs")
    assert "cache miss" in logs
    assert "+5.00\u202fms" in logs
    failure = _pane(look, "Error")
    for wanted in ("TimeoutError", "did not answer", "app/db.py"):
        assert wanted in failure
    attributes = _pane(look, "Attributes")
    for wanted in ("db.system", "postgresql", "service.name", "laptop"):
        assert wanted in attributes


def _full(number: int) -> Trace:
    exception = {
        "exception.type": "TimeoutError",
        "exception.message": "it did not answer",
        "exception.stacktrace": STACK,
    }
    events = (("cache miss", 5.0, {"shard": 3}), ("exception", 100.0, exception))
    question = {"about": "refund", "lines": [{"sku": "a", "count": 2}]}
    return _one(
        number,
        status=2,
        input=question,
        output={"approved": True},
        events=events,
        attributes={"db.system": "postgresql"},
    )


def test_a_span_has_its_panes(sent: Callable[[Trace], str], looking: Callable[..., Look]) -> None:
    check_panes(looking(sent(_full(0xE2))))


COPIED = """() => {
    window.copied = false;
    const look = () => { copied ||= [...document.querySelectorAll('.copy')].some(one => one.textContent === 'Copied'); };
    new MutationObserver(look).observe(document.body, { subtree: true, childList: true, characterData: true });
}"""
"""The button says so for a second only, which may be over before somebody looks from outside."""


def check_copy(look: Look, original: str) -> None:
    look.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    _open(look)
    look.page.evaluate(COPIED)
    look.page.get_by_role("button", name="Copy the original text").click()
    look.shows(lambda: look.page.evaluate("() => copied"))
    assert look.page.evaluate("() => navigator.clipboard.readText()") == original


ORIGINAL = '{"b":  1,\n\t"a": "x\\u00e9",  "b": 2, "long": 12345678901234567890 }'


def test_json_is_a_tree_and_copy_gives_exactly_what_was_sent(
    sent: Callable[[Trace], str], looking: Callable[..., Look]
) -> None:
    look = looking(sent(_one(0xE21, input=ORIGINAL)))
    check_copy(look, ORIGINAL)
    assert look.page.locator(".json details").count() >= 1
    look.page.locator(".json summary").first.press("Enter")
    look.shows(lambda: look.page.locator(".json details[open]").count() == 0)


def check_hostile(look: Look) -> None:
    _open(look, HOSTILE)
    for name in ("Input", "Output", "Logs", "Error", "Attributes", "Raw"):
        text = _pane(look, name)
        assert "<script>window.broken" in text, name
        assert "onerror=" in text, name
    assert look.page.evaluate("() => window.broken") is None
    assert look.page.locator("#app script, #app img").count() == 0


def _hostile(number: int) -> Trace:
    exception = {f"exception.{part}": HOSTILE for part in ("type", "message", "stacktrace")}
    events = ((HOSTILE, 1.0, {HOSTILE: HOSTILE}), ("exception", 2.0, exception))
    conversation = json.dumps([{"role": HOSTILE, "parts": [{"type": "text", "content": HOSTILE}]}])
    trace = _one(
        number,
        name=HOSTILE,
        status=2,
        input=HOSTILE,
        output=json.dumps({HOSTILE: HOSTILE}),
        events=events,
        attributes={
            HOSTILE: HOSTILE,
            "gen_ai.output.messages": conversation,
            "session.id": HOSTILE,
            "user.id": HOSTILE,
        },
    )
    trace.service = HOSTILE
    return trace


def test_markup_anywhere_is_text(own: Served, looking: Callable[..., Look]) -> None:
    trace = _hostile(0xE3)
    assert post(own.url, encode(trace)) == 200
    look = looking(f"{own.url}/trace/{trace.id}")
    check_hostile(look)
    assert not look.complaints
    for address in ("/", "/sessions", "/stats", f"/diff?a={trace.id}&b={trace.id}"):
        other = looking(own.url + address)
        other.ready()
        other.page.get_by_text("<script>window.broken").first.wait_for()
        assert other.page.evaluate("() => window.broken") is None


def check_chip(look: Look) -> None:
    _open(look)
    look.page.get_by_role("tab", name="Input").click()
    chip = look.page.locator(".pane .chip").first
    look.shows(chip.is_visible)
    assert "image/png" in chip.inner_text()
    assert "MB" in chip.inner_text()
    assert len(look.page.locator("#pane").inner_text()) < 5000


def _picture(number: int) -> Trace:
    picture = base64.b64encode(b"\x89PNG\r\n\x1a\n" + os.urandom(3_750_000)).decode()
    return _one(number, input=f"look at this: data:image/png;base64,{picture} what is it?")


def test_megabytes_of_base64_are_a_chip(sent: Callable[[Trace], str], looking: Callable[..., Look]) -> None:
    check_chip(looking(sent(_picture(0xE4))))


def _spending(number: int) -> Trace:
    trace = Trace(number, just_now())
    trace.add(Span("agent", 0, 1000, None, "agent", attributes={"gen_ai.usage.input_tokens": 300}))
    for i in range(3):
        used = {"gen_ai.usage.input_tokens": 100, "gen_ai.usage.output_tokens": 20, "gen_ai.usage.cost": 0.02}
        trace.add(Span(f"chat {i}", i * 100, 50, 0, "llm", attributes=used))
    return trace


def check_sums(look: Look) -> None:
    page = look.ready()
    assert [row["badge"] for row in rows(page)] == ["360 tok", *["120 tok"] * 3]
    facts = page.locator(".trace-facts").inner_text()
    assert "$0.060" in facts


def test_tokens_and_cost_add_up(sent: Callable[[Trace], str], looking: Callable[..., Look]) -> None:
    check_sums(looking(sent(_spending(0xE6))))


# ── conversations ───────────────────────────────────────────────────────────────────────────────────────────


def check_conversation(look: Look) -> None:
    _open(look)
    check_what_is_said(look)


def check_what_is_said(look: Look) -> None:
    look.page.get_by_role("tab", name="Input").click()
    look.shows(
        lambda: look.page.locator(".chat .message").count() >= 4, lambda: look.page.locator("#pane").inner_text()
    )
    said = [
        (item.locator(".role").inner_text().split()[0], item.locator(".parts").inner_text())
        for item in look.page.locator(".chat .message").all()
    ]
    roles = [role for role, _ in said]
    assert roles[:3] == ["system", "user", "assistant"]
    assert roles[3] in ("tool", "user")
    assert SYSTEM in said[0][1]
    assert QUESTION in said[1][1]
    assert "lookup_order" in said[2][1]
    assert "A-17" in said[2][1]
    assert RESULT in said[3][1]
    look.page.get_by_role("tab", name="Output").click()
    look.shows(lambda: look.page.locator(".chat .message").count() == 1)
    assert look.page.locator(".chat .role").inner_text().startswith("assistant")
    assert ANSWER in look.page.locator(".chat").inner_text()
    tokens = look.page.locator(".fact-tokens").inner_text().replace("\u202f", "")
    assert str(TOKENS[0]) in tokens
    assert str(TOKENS[1]) in tokens


def _talk(dialect: str) -> Trace:
    attributes, events = CONVERSATIONS[dialect]
    return _one(0xB500 + list(CONVERSATIONS).index(dialect), attributes=attributes, events=events)


@pytest.mark.parametrize("dialect", CONVERSATIONS)
def test_what_sdks_write_is_shown_as_a_conversation(
    dialect: str, sent: Callable[[Trace], str], looking: Callable[..., Look], photograph: Callable[..., None]
) -> None:
    look = looking(sent(_talk(dialect)))
    check_conversation(look)
    if dialect == "Langfuse":
        look.page.get_by_role("tab", name="Input").click()
        photograph(look.page, "chat-light")


PAYLOADS = Path(__file__).parents[1] / "collector" / "payloads"
CAPTURED = {
    "langfuse.pb": ("answer", ["user tea?"], ["assistant green"], "12 in · 3 out"),
    "langfuse-js.json": ("answer", ["user tea?"], ["assistant green"], "12 in · 3 out"),
    "agentops.pb": ("search.tool", ["args", "tea"], ["about tea"], "$0.050"),
    "opentelemetry-js.pb": ("checkout", ["t\u00e9"], [], ""),
    "opentelemetry-js.json": ("checkout", ["t\u00e9"], [], ""),
    "logfire.pb": ("pay", [], [], ""),
}
"""What real SDKs sent: a span of it, and what of its input, output and facts is seen."""


@pytest.mark.parametrize("name", CAPTURED)
def test_what_sdks_sent_is_shown(name: str, own: Served, looking: Callable[..., Look]) -> None:
    span, asked, answered, fact = CAPTURED[name]
    kind = "application/json" if name.endswith("json") else "application/x-protobuf"
    assert post(own.url, (PAYLOADS / name).read_bytes(), content_type=kind) == 200
    look = looking(own.url)
    look.ready()
    look.page.locator("a.link").first.click()
    look.page.locator(".row").first.wait_for()
    _open(look, span)
    for pane, wanted in (("Input", asked), ("Output", answered)):
        text = " ".join(_pane(look, pane).split()) if wanted else ""
        assert not [words for words in wanted if words not in text], text
    assert fact in look.page.locator(".facts").inner_text().replace("\n", " ")
    assert not look.complaints


MUTANTS = {
    "an exception without its stack": (
        check_panes,
        lambda: _full(0xE2),
        ("trace/detail.js", "text=${failure.stacktrace} mono", "text='' mono"),
    ),
    "base64 in full": (check_chip, lambda: _picture(0xE4), ("show/blobs.js", "text.length < SHORTEST", "true")),
    "a copy that was made pretty": (
        lambda look: check_copy(look, ORIGINAL),
        lambda: _one(0xE21, input=ORIGINAL),
        ("trace/detail.js", "const original = text ??", "const original = JSON.stringify(tree) ??"),
    ),
    "tool calls lost": (
        check_conversation,
        lambda: _talk("OpenInference"),
        ("chat/dialects.js", "...calls.filter(Boolean)], finish", "], finish"),
    ),
    "what a span says becomes markup": (
        check_hostile,
        lambda: _hostile(0xE30),
        (
            "show/text.js",
            'html`<div class="text ${mono ? "mono" : ""} ${className}">',
            'html`<div dangerouslySetInnerHTML=${{ __html: whole }} class="text ${mono ? "mono" : ""} ${className}">',
        ),
    ),
    "an agent that repeats its models counts twice": (
        check_sums,
        lambda: _spending(0xE60),
        ("trace/model.js", "Math.max(mine[0] ?? 0, theirs[0])", "(mine[0] ?? 0) + theirs[0]"),
    ),
    "only own tokens": (
        check_sums,
        lambda: _spending(0xE60),
        ("trace/model.js", "const sum = this.sums.get(span);", "const sum = this.tokens.get(span);"),
    ),
    "roles lost": (
        check_conversation,
        lambda: _talk("Traceloop"),
        ("chat/messages.js", "const kind = String(ROLES[role] ?? role ?? fallback);", 'const kind = "user";'),
    ),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_broken_detail_is_noticed(mutant: str, sent: Callable[[Trace], str], looking: Callable[..., Look]) -> None:
    check, make, changed = MUTANTS[mutant]
    look = looking(
        sent(make()), changed=changed, bypass_csp=check is check_hostile
    )  # whose page could not do it at all
    with pytest.raises(AssertionError):
        check(look)
