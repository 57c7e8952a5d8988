"""Light and dark, small windows and large letters, the keyboard alone, calm, and honest about what is missing."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from ..collector.processes import Served
from .seeing import PATIENCE, Look, drawn, eventually, rows
from .traces import Span, Trace, agent, encode, just_now, post

if TYPE_CHECKING:
    from playwright.sync_api import Page

CONTRAST = """() => {
    const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
    const rgb = text => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
        const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255]; };
    const over = ([r, g, b, a], [x, y, z]) => [r * a + x * (1 - a), g * a + y * (1 - a), b * a + z * (1 - a), 1];
    const light = ([r, g, b]) => [r, g, b].map(c => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
        .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const ground = element => {
        const layers = [];
        for (let at = element; at; at = at.parentElement) layers.push(rgb(getComputedStyle(at).backgroundColor));
        return layers.reverse().reduce((below, layer) => over(layer, below), [255, 255, 255, 1]);
    };
    const found = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const element = walker.currentNode.parentElement;
        const text = walker.currentNode.textContent.trim();
        const box = element.getBoundingClientRect();
        if (!text || !box.width) continue;
        if (!element.checkVisibility({ opacityProperty: true, visibilityProperty: true })) continue;
        if (element.closest(':disabled, noscript, script, style, .mirror, .offscreen, .skip, .uplot')) continue;
        const behind = ground(element);
        const front = over(rgb(getComputedStyle(element).color), behind);
        const [a, b] = [light(front), light(behind)].sort((x, y) => y - x);
        const ratio = (a + 0.05) / (b + 0.05);
        found.push({ text: text.slice(0, 40), ratio: Math.round(ratio * 100) / 100, of: element.className });
    }
    return found;
}"""


@pytest.fixture(scope="module")
def addresses(shared: Served) -> dict[str, str]:
    one, other = agent(0x71, just_now(), seed=3), agent(0x72, just_now(), seed=4)
    for trace in (one, other):
        assert post(shared.url, encode(trace)) == 200
    failed = trace_number_of_failure(one)
    return {
        "runs": f"{shared.url}/?q=research",
        "trace": f"{shared.url}/trace/{one.id}?span={one.span_id(failed)}&q=type:llm",
        "conversation": f"{shared.url}/trace/{one.id}?span={one.span_id(2)}&critical=1",
        "diff": f"{shared.url}/diff?a={one.id}&b={other.id}",
        "sessions": f"{shared.url}/sessions",
        "statistics": f"{shared.url}/stats",
    }


def trace_number_of_failure(trace: Trace) -> int:
    return next(number for number, span in enumerate(trace.spans) if span.name == "db.query")


def whole(look: Look) -> Page:
    """The page, when all is there that its address asks for. That the network is idle says nothing about a slow page: it
    may rest before it asks for the next piece."""
    page = look.ready()
    if "span=" in page.url:
        page.locator(".pane > :not(.loading)").first.wait_for()
    page.wait_for_load_state("networkidle")
    eventually(lambda: page.locator(".loading, [aria-busy=true]").count() == 0, PATIENCE / 1000, page=page)
    return page


def check_contrast(look: Look) -> None:
    whole(look)
    # what arrived is tinted for a moment
    look.shows(lambda: look.page.locator(".fresh").count() == 0 and look.page.evaluate(MOVING) == 0)
    found = look.page.evaluate(CONTRAST)
    assert len(found) > 10
    assert not [one for one in found if one["ratio"] < 4.5]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("screen", ["runs", "trace", "conversation", "diff", "sessions", "statistics"])
def test_every_text_has_contrast(
    screen: str, scheme: str, addresses: dict[str, str], looking: Callable[..., Look]
) -> None:
    check_contrast(looking(addresses[screen], color_scheme=scheme))


def check_theme(look: Look) -> None:
    page = look.ready()
    ground = "() => getComputedStyle(document.body).backgroundColor"
    system = page.evaluate(ground)
    page.get_by_role("button", name="Theme").click()
    look.shows(lambda: page.evaluate(ground) != system)
    light = page.evaluate(ground)
    page.reload()
    look.ready()
    assert page.evaluate(ground) == light
    page.get_by_role("button", name="Theme").click()
    page.get_by_role("button", name="Theme").click()
    look.shows(lambda: page.evaluate(ground) == system)
    page.emulate_media(color_scheme="light")
    look.shows(lambda: page.evaluate(ground) == light)


def test_the_theme_is_the_systems_until_one_is_chosen_and_stays(
    addresses: dict[str, str], looking: Callable[..., Look]
) -> None:
    check_theme(looking(addresses["runs"], color_scheme="dark"))


def check_narrow(look: Look) -> None:
    page = whole(look)
    wide, shown = page.evaluate("() => [document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert wide <= shown
    cut = page.evaluate(
        """() => [...document.querySelectorAll('button, a, input, h1, [role=tab]')]
            .filter(one => one.checkVisibility() && !one.closest('.offscreen, .skip, .tabs, [role=grid], [role=tree]'))
            .map(one => [one.textContent, one.getBoundingClientRect()])
            .filter(([, box]) => box.right > innerWidth + 1 || box.left < -1).map(([text]) => text)"""
    )
    assert not cut


def check_sight(look: Look) -> None:
    """The row that is chosen is in sight, although its detail took room from the tree."""
    page = look.ready()
    look.shows(lambda: page.locator(".tabs").count() == 1)

    def is_seen() -> bool:
        box = page.locator("[role=tree]").bounding_box()
        tops = [row["top"] for row in rows(page) if row["selected"]]
        return bool(box and tops and box["y"] <= tops[0] <= box["y"] + box["height"] - 20)

    look.shows(is_seen)


SMALL = [("narrow", 900, 700, 1), ("zoomed", 640, 400, 2), ("phone", 420, 800, 2)]


@pytest.mark.parametrize("screen", ["runs", "trace", "diff", "sessions", "statistics"])
@pytest.mark.parametrize(("name", "width", "height", "scale"), SMALL)
def test_it_can_be_used_in_a_small_window_and_at_twice_the_size(
    name: str,
    width: int,
    height: int,
    scale: int,
    screen: str,
    addresses: dict[str, str],
    looking: Callable[..., Look],
    photograph: Callable[..., None],
) -> None:
    look = looking(addresses[screen], viewport={"width": width, "height": height}, device_scale_factor=scale)
    check_narrow(look)
    photograph(look.page, f"{screen}-{name}")
    if screen == "trace":
        check_sight(look)
        look.page.evaluate("() => { document.querySelector('[role=tree]').scrollTop = 0 }")
        look.shows(lambda: abs(rows(look.page)[0]["bar"]["left"] - look.page.locator(".grid").bounding_box()["x"]) <= 1)
        look.page.locator(".row[data-index='2']").click()
        look.page.locator(".chat").scroll_into_view_if_needed()
        look.page.locator(".chat").wait_for()


CONTROLS = "button, a[href], input, select, [role=tab], [role=separator], [role=grid], [role=tree]"
NAMELESS = f"""() => [...document.querySelectorAll('{CONTROLS}')].filter(one => one.checkVisibility())
    .filter(one => !(one.getAttribute('aria-label') || one.textContent.trim() || one.labels?.length || one.title))
    .map(one => one.outerHTML.slice(0, 120))"""
REACHABLE = """() => [...document.querySelectorAll('button:not(:disabled), a[href], input, select, summary, [tabindex="0"]')]
    .filter(one => one.checkVisibility() && one.tabIndex >= 0 && !one.closest('[hidden], .offscreen')).length"""
FOCUSED = """() => { const one = document.activeElement; if (!one || one === document.body) return null;
    one.dataset.reached = '1'; return one.outerHTML.slice(0, 80); }"""


def check_reach(look: Look) -> None:
    page = whole(look)
    assert page.locator("h1").count() == 1
    assert page.locator("main").count() == 1
    assert page.locator("nav").count() >= 1
    assert page.locator("header").count() >= 1
    assert not page.evaluate(NAMELESS)
    wanted = page.evaluate(REACHABLE)
    page.evaluate("() => document.body.focus()")
    for _ in range(wanted + 12):
        page.keyboard.press("Tab")
        page.evaluate(FOCUSED)
    reached = page.evaluate("() => document.querySelectorAll('[data-reached]').length")
    assert reached >= wanted


@pytest.mark.parametrize("screen", ["runs", "trace", "diff", "sessions", "statistics"])
def test_everything_is_reached_by_tab_and_has_a_name(
    screen: str, addresses: dict[str, str], looking: Callable[..., Look]
) -> None:
    check_reach(looking(addresses[screen]))


def check_ticking(look: Look) -> None:
    page = look.ready()
    changes = """() => new Promise(done => {
        const time = document.querySelector('.row .time');
        let changes = 0;
        new MutationObserver(() => changes++).observe(time, { childList: true, characterData: true, subtree: true });
        const began = performance.now();
        setTimeout(() => done([changes, (performance.now() - began) / 1000]), 2500);
    })"""
    number, seconds = page.evaluate(changes)
    assert number <= 1.6 * seconds
    assert page.evaluate(MOVING) == 0


MOVING = "() => document.getAnimations().length"
ARRIVES = """id => {
    window.seen = { lit: false, moved: false };
    const look = () => { seen.lit ||= document.querySelector(`.run.fresh[data-trace='${id}']`) !== null; };
    new MutationObserver(look).observe(document.querySelector('.run-grid'), { subtree: true, attributes: true });
    document.addEventListener('animationstart', () => { seen.moved = true; });
}"""
"""What is lit is so for a second only, which may be over before somebody looks from outside."""


def check_arriving(look: Look, url: str, number: int) -> None:
    page = look.listening()
    page.evaluate(ARRIVES, f"{number:032x}")
    assert post(url, encode(agent(number, just_now() + 29 * 10**9))) == 200
    look.shows(lambda: page.evaluate("() => seen.lit"))
    drawn(page)
    assert not page.evaluate("() => seen.moved")


def _open(number: int) -> Trace:
    trace = Trace(number, just_now() + 28 * 10**9)
    trace.add(Span("open", 0, None))
    return trace


def test_who_wants_no_motion_has_none(
    shared: Served, sent: Callable[[Trace], str], looking: Callable[..., Look]
) -> None:
    check_ticking(looking(sent(_open(0x74)), reduced_motion="reduce"))
    check_arriving(looking(shared.url, reduced_motion="reduce"), shared.url, 0x75)


def test_a_time_that_runs_for_those_who_want_it_calm_is_noticed(
    sent: Callable[[Trace], str], looking: Callable[..., Look]
) -> None:
    changed = ("base/parts.js", 'matchMedia("(prefers-reduced-motion: reduce)").matches', "false")
    look = looking(sent(_open(0x740)), reduced_motion="reduce", changed=changed)
    with pytest.raises(AssertionError):
        check_ticking(look)


def test_a_run_that_lights_up_for_those_who_want_it_calm_is_noticed(
    shared: Served, looking: Callable[..., Look]
) -> None:
    changed = ("style.css", "animation: none !important; ", "")
    look = looking(shared.url, reduced_motion="reduce", changed=changed)
    with pytest.raises(AssertionError):
        check_arriving(look, shared.url, 0x750)


def check_completeness(look: Look) -> None:
    look.ready()
    bar = look.page.get_by_role("group", name="Completeness")
    assert "12 dropped" in bar.inner_text()
    assert "partial" in (bar.get_attribute("class") or "")


def _dropped(number: int) -> Trace:
    trace = Trace(number, just_now())
    trace.add(Span("root", 0, 100, attributes={"asynctrace.dropped_spans": 12}))
    trace.add(Span("child", 0, 50, 0))
    return trace


def test_the_completeness_bar_tells_what_was_dropped(
    sent: Callable[[Trace], str], looking: Callable[..., Look]
) -> None:
    check_completeness(looking(sent(_dropped(0x76))))


def test_a_pin_is_kept(own: Served, looking: Callable[..., Look]) -> None:
    trace = agent(0x77, just_now())
    assert post(own.url, encode(trace)) == 200
    page = looking(f"{own.url}/trace/{trace.id}").ready()
    page.get_by_role("button", name="Pin", exact=True).click()
    page.get_by_role("button", name="Pinned").wait_for()
    page.reload()
    page.get_by_role("button", name="Pinned").wait_for()
    assert rows(page)


MUTANTS = {
    "pale": (check_contrast, "runs", ("style.css", "--muted: light-dark(#65655f", "--muted: light-dark(#999999")),
    "a theme that is forgotten": (
        check_theme,
        "runs",
        ("base/theme.js", 'localStorage.getItem("asynctrace.theme")', "null"),
    ),
    "too wide": (
        check_narrow,
        "runs",
        ("style.css", "html, body { height: 100%;", "html, body { min-width: 1000px; height: 100%;"),
    ),
    "a chosen row out of sight": (
        check_sight,
        "trace",
        ("trace/screen.js", "this.tree.shows(this.tree.active, this.tall)", "false"),
    ),
    "a button without a name": (
        check_reach,
        "runs",
        (
            "screens/help.js",
            'aria-label="Keyboard shortcuts" title="Keyboard shortcuts" onClick=${() => setOpen(true)}>?<',
            "onClick=${() => setOpen(true)}><",
        ),
    ),
    "out of reach": (
        check_reach,
        "runs",
        (
            "screens/runs.js",
            "onClick=${() => this.file.current.click()}",
            "onFocus=${(event) => event.currentTarget.blur()}",
        ),
    ),
    "nothing dropped": (
        check_completeness,
        "",
        ("trace/screen.js", '["dropped", facts.dropped ?? 0]', '["dropped", 0]'),
    ),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_what_shuts_somebody_out_is_noticed(
    mutant: str, addresses: dict[str, str], sent: Callable[[Trace], str], looking: Callable[..., Look]
) -> None:
    check, screen, changed = MUTANTS[mutant]
    options = {"viewport": {"width": 900, "height": 700}} if check in (check_narrow, check_sight) else {}
    scheme = "dark" if check is check_theme else "light"
    look = looking(addresses.get(screen) or sent(_dropped(0x76)), changed=changed, color_scheme=scheme, **options)
    with pytest.raises(AssertionError):
        check(look)
