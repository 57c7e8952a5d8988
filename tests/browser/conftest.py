"""A browser, a collector with an empty directory, and pages that write down what they asked for and complained about.

`nox -s browser` runs this folder. `ASYNCTRACE_BROWSER_SLACK` multiplies every bound of time (2 where nothing else is said): a
machine that does other things is no reason to fail. Screenshots go to `ASYNCTRACE_SCREENSHOTS`, or `build/screenshots`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ..collector.processes import Served, serving
from .seeing import IMPATIENCE, Look
from .traces import Span, Trace, encode, just_now, large, post

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

collect_ignore_glob = [] if importlib.util.find_spec("playwright") else ["test_*.py"]
"""Where the dependency group `browser` is not installed, there is nothing to collect."""

ARGUMENTS = (
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--no-first-run",
    "--metrics-recording-only",
)
WAITS_LONG = """
import sys
from asynctrace.cli import main
from asynctrace.collector.live import _open_spans

_open_spans.LOST_AFTER = 3600.0
sys.exit(main(["serve", *sys.argv[1:]]))
"""
"""A collector that takes an open span for lost when its sender was silent for an hour, and not for the 15 seconds that a page
may need to open on a slow machine."""
NAMES = ("chromium", "chromium-browser", "google-chrome")
SCREENSHOTS = Path(os.environ.get("ASYNCTRACE_SCREENSHOTS", Path(__file__).parents[2] / "build" / "screenshots"))


@pytest.fixture(scope="session")
def slack() -> float:
    return float(os.environ.get("ASYNCTRACE_BROWSER_SLACK", "2"))


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    executable = next((found for name in NAMES if (found := shutil.which(name))), None)
    if executable is None:
        without = pytest.fail if "CI" in os.environ else pytest.skip  # CI installs one
        without("needs Chromium (Debian: chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=list(ARGUMENTS))
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A collector for tests that look at traces of their own only."""
    with serving(tmp_path_factory.mktemp("shared"), program=("-c", WAITS_LONG)) as collector:
        yield collector


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Served]:
    """A collector that nobody else uses."""
    with serving(tmp_path / "store", program=("-c", WAITS_LONG)) as collector:
        yield collector


@pytest.fixture
def looking(browser: Browser) -> Iterator[Callable[..., Look]]:
    """`looking(url, **options of the context)`: a fresh browser with that address open."""
    with contextlib.ExitStack() as contexts:

        def look(url: str, *, changed: tuple[str, str, str] | None = None, **options: Any) -> Look:
            settings: dict[str, Any] = {"viewport": {"width": 1280, "height": 800}, **options}
            context = browser.new_context(**settings)
            contexts.callback(_closed, context)
            seen = Look(context.new_page())
            if changed is not None:
                contexts.callback(_was_broken, changed[0], _broken(seen.page, *changed))
                seen.patience = IMPATIENCE
            seen.page.goto(url)
            return seen

        yield look


def _closed(context: BrowserContext) -> None:
    """A file that is still on its way fails where nobody waits for it, and not in the next test."""
    for page in context.pages:
        page.unroute_all(behavior="ignoreErrors")
    context.unroute_all(behavior="ignoreErrors")
    context.close()


def _broken(page: Page, file: str, before: str, after: str) -> list[bool]:
    """The page with one of its files changed: a mutant. Whether it could be, each time that the page asked for the file."""
    found: list[bool] = []

    def answer(route: Any) -> None:
        response = route.fetch()
        text = response.text()
        found.append(before in text)
        route.fulfill(response=response, body=text.replace(before, after))

    page.context.route(f"**/page/{file}", answer)
    return found


def _was_broken(file: str, found: list[bool]) -> None:
    """A page that was not changed, or not yet, shows nothing about a mutant, whatever failed."""
    assert found, f"the page did not ask for {file}"
    assert all(found), f"{file} has not what was to be changed"


@pytest.fixture
def sent(shared: Served) -> Callable[[Trace], str]:
    """Sends a trace to the shared collector; the address of its page."""

    def send(trace: Trace) -> str:
        assert post(shared.url, encode(trace)) == 200
        return f"{shared.url}/trace/{trace.id}"

    return send


@pytest.fixture(scope="session")
def huge(shared: Served) -> str:
    """The address of a trace of 100,000 spans."""
    trace = large(0xA0000, 100_000)
    for first in range(0, 100_000, 10_000):
        assert post(shared.url, encode(trace, range(first, first + 10_000))) == 200
    return f"{shared.url}/trace/{trace.id}"


@pytest.fixture(scope="session")
def million(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A collector with a million spans in a thousand runs. Each has an `order.id`; one in the middle asks about a needle."""
    with serving(tmp_path_factory.mktemp("million")) as collector:
        for number in range(1, 1001):
            trace = Trace(number, just_now() - number * 10**9)
            for i in range(1000):
                said = f"where is the needle of order {i}" if (number, i) == (500, 500) else f"where is order {i}"
                name, parent = (f"part {i % 20}", 0) if i else (f"run {number}", None)
                trace.add(Span(name, i, 1, parent, attributes={"order.id": f"{number}-{i}"}, input=said))
            assert post(collector.url, encode(trace)) == 200
        yield collector


@pytest.fixture
def photograph() -> Callable[[Page, str], None]:
    """Keep how a page looks."""

    def take(page: Page, name: str) -> None:
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=SCREENSHOTS / f"{name}.png")

    return take
