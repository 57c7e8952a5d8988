"""The page comes from the collector alone, is small, and is not allowed anything that it does not need."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from ..collector.processes import ENVIRONMENT, SERVE, Served, serving
from .seeing import Look, eventually
from .traces import agent, encode, just_now, post

FIRST_LOAD = 60_000
"""Bytes of script and style, compressed."""
MEMORY = 80 * 1024 * 1024


@pytest.fixture(scope="module")
def screens(shared: Served) -> dict[str, str]:
    """The address of every screen."""
    one, other = agent(0xB1, just_now(), seed=3), agent(0xB2, just_now(), seed=4)
    for trace in (one, other):
        assert post(shared.url, encode(trace)) == 200
    addresses = {
        "runs": "/",
        "trace": f"/trace/{one.id}?span={one.span_id(2)}",
        "diff": f"/diff?a={one.id}&b={other.id}",
        "sessions": "/sessions",
        "statistics": "/stats",
        "nothing": "/nothing/here",
    }
    return {name: shared.url + address for name, address in addresses.items() if name != "nothing"}


SCREENS = ("runs", "trace", "diff", "sessions", "statistics")


def check_origin(look: Look) -> None:
    look.ready()
    look.page.wait_for_load_state("networkidle")
    here = urlsplit(look.page.url).netloc
    elsewhere = [url for url in look.asked if urlsplit(url).netloc != here and not url.startswith("data:")]
    assert look.asked
    assert not elsewhere


def check_quiet(look: Look) -> None:
    look.ready()
    look.page.wait_for_load_state("networkidle")
    look.page.keyboard.press("?")
    look.page.keyboard.press("Escape")
    assert not look.complaints


@pytest.mark.parametrize("screen", SCREENS)
def test_every_screen_asks_its_own_origin_only_and_has_nothing_to_complain_about(
    screen: str, screens: dict[str, str], looking: Callable[..., Look], photograph: Callable[..., None]
) -> None:
    for scheme in ("light", "dark"):
        look = looking(screens[screen], color_scheme=scheme)
        check_origin(look)
        check_quiet(look)
        photograph(look.page, f"{screen}-{scheme}")


@pytest.mark.parametrize("screen", ["runs", "trace", "diff", "sessions"])
def test_script_and_style_of_the_first_load_are_small(
    screen: str, screens: dict[str, str], looking: Callable[..., Look]
) -> None:
    page = looking(screens[screen]).ready()
    page.wait_for_load_state("networkidle")
    files: dict[str, int] = page.evaluate(
        "() => Object.fromEntries(performance.getEntriesByType('resource')"
        ".filter(one => /\\.(js|css)$/.test(one.name)).map(one => [one.name, one.encodedBodySize]))"
    )
    assert len(files) > 5
    assert all(files.values())
    assert sum(files.values()) <= FIRST_LOAD


def test_a_policy_forbids_everything_else(screens: dict[str, str], looking: Callable[..., Look]) -> None:
    for address in screens.values():
        with urllib.request.urlopen(address, timeout=20) as answer:
            policy = answer.headers["content-security-policy"]
            assert answer.headers["x-content-type-options"] == "nosniff"
        for wanted in ("default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"):
            assert wanted in policy
        assert "unsafe" not in policy
    page = looking(screens["runs"]).ready()
    injected = """() => {
        try {
            const script = document.createElement('script');
            script.textContent = 'window.injected = true';
            document.head.append(script);
        } catch { /* not even a text can become a script */ }
        return window.injected ?? false;
    }"""
    assert page.evaluate(injected) is False


def test_a_file_that_is_known_is_not_sent_again_and_none_but_the_pages_files_are(shared: Served) -> None:
    with urllib.request.urlopen(f"{shared.url}/page/app.js", timeout=20) as answer:
        tag = answer.headers["etag"]
    assert _status(f"{shared.url}/page/app.js", **{"if-none-match": tag}) == 304
    for name in ("nothing.js", "../_page.py", "%2e%2e/_page.py", "vendor/LICENSE.htm", "index.html/"):
        assert _status(f"{shared.url}/page/{name}") == 404


def test_serve_prints_its_url_is_ready_soon_and_is_light(tmp_path: Path, slack: float) -> None:
    began = time.monotonic()
    with serving(tmp_path) as collector:
        eventually(lambda: _status(f"{collector.url}/readyz") == 200, 20)
        assert time.monotonic() - began < 2 * slack
        text = Path(f"/proc/{collector.process.pid}/status").read_text()
        resident = next(int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("VmRSS:"))
    assert resident < MEMORY


def test_a_foreign_host_gets_nothing_and_another_address_needs_a_token(shared: Served, tmp_path: Path) -> None:
    assert _status(shared.url, host="evil.example") == 403
    command = [sys.executable, *SERVE, "--host", "0.0.0.0", "--port", "0", "--data", str(tmp_path), "--no-open"]
    refused = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=60, check=False)
    assert refused.returncode != 0
    assert "token" in refused.stderr


def _status(url: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


ELSEWHERE = ("app.js", "listenToKeys();", "fetch('http://127.0.0.2:9/').catch(() => 0);")


@pytest.mark.parametrize(
    ("check", "changed", "options"),
    [
        pytest.param(check_origin, ELSEWHERE, {"bypass_csp": True}, id="asks elsewhere, and may"),
        pytest.param(check_quiet, ELSEWHERE, {}, id="asks elsewhere"),
        pytest.param(check_quiet, ("app.js", "followLinks();", "console.error('no');"), {}, id="complains"),
    ],
)
def test_a_page_that_is_not_quiet_is_noticed(
    check: Callable[[Look], None],
    changed: tuple[str, str, str],
    options: dict[str, bool],
    screens: dict[str, str],
    looking: Callable[..., Look],
) -> None:
    look = looking(screens["runs"], changed=changed, **options)
    with pytest.raises(AssertionError):
        check(look)
