"""What a person sees of the page, as Python values."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..patience import patient

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

__all__ = ["IMPATIENCE", "PATIENCE", "Look", "drawn", "eventually", "heeded", "rows", "runs", "tree"]

PATIENCE = 1000 * patient(10)
"""Milliseconds that a test waits for what is no question of speed."""
IMPATIENCE = 1500.0
"""Milliseconds that a mutant has to do what it will not do."""
LOOKS = 20
"""Times a second that one looks at a mutant, at least: on a slow machine it has as much longer as a look at it takes."""
SUBSCRIBED = '{"type":"subscribed"'


class Look:
    """A page, everything it asked for and everything it complained about. `patience`: how long what is expected may take, in
    milliseconds."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.asked: list[str] = []
        self.complaints: list[str] = []
        self.patience = PATIENCE
        self._is_heard = False
        page.set_default_timeout(PATIENCE)
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("websocket", self._connected)
        page.on("console", self._said)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))

    def _connected(self, socket: Any) -> None:
        self.asked.append(socket.url)
        self._is_heard = False
        socket.on("framereceived", self._heard)

    def _heard(self, message: str | bytes) -> None:
        if isinstance(message, str) and message.startswith(SUBSCRIBED):
            self._is_heard = True

    def _said(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def ready(self) -> Page:
        """The page, when its tree or its list stands."""
        self.page.locator(".row, .run:not(.head), .plain-table, .notice, .diff-row:not(.head)").first.wait_for()
        return self.page

    def listening(self) -> Page:
        """The page, when its list stands and what comes now is news: it reads the list anew when the collector listens
        for it, which may be long after it is live."""
        eventually(lambda: self._is_heard, PATIENCE / 1000, "the list does not listen", self.page)
        self.page.locator(".run-grid[aria-busy=false]").wait_for(state="attached")
        return self.ready()

    def row(self, name: str) -> Locator:
        """The row of the tree that has this name."""
        return self.page.locator(".row:visible").filter(has=self.page.locator(f".name:text-is({_quoted(name)})"))

    def shows(self, what: Callable[[], bool], why: object = "") -> None:
        """Fails unless it becomes true."""
        seconds = self.patience / 1000
        eventually(what, seconds, why, self.page, looks=int(LOOKS * seconds) if self.patience < PATIENCE else 0)


def eventually(
    what: Callable[[], bool], seconds: float, why: object = "", page: Page | None = None, looks: int = 0
) -> float:
    """Seconds until it was true. `AssertionError` when it is not in time, nor after so many looks."""
    began = time.monotonic()
    while not what():
        looks -= 1
        in_time = looks >= 0 or time.monotonic() - began < seconds
        assert in_time, why() if callable(why) else why or "it did not happen"
        if page is not None:
            page.wait_for_timeout(20)
        else:
            time.sleep(0.02)
    return time.monotonic() - began


def drawn(page: Page) -> None:
    """Returns when what follows a change of size or place is drawn: it comes with the frames after it."""
    page.evaluate(
        "async () => { for (let i = 0; i < 3; i++) await new Promise(frame => requestAnimationFrame(() => frame())) }"
    )


def heeded(page: Page) -> None:
    """Returns when the page has dealt with every answer that reached it: with a later one, too."""
    page.evaluate("async () => { await (await fetch('/api/v1/status')).json() }")
    drawn(page)


def rows(page: Page) -> list[dict[str, Any]]:
    """The rows of the tree that have an element, from above."""
    found: list[dict[str, Any]] = page.evaluate(
        """() => [...document.querySelectorAll('[role=treeitem]')].filter(row => !row.hidden).map(row => ({
            top: row.getBoundingClientRect().top,
            level: Number(row.getAttribute('aria-level')),
            expanded: row.getAttribute('aria-expanded'),
            selected: row.getAttribute('aria-selected') === 'true',
            label: row.getAttribute('aria-label'),
            index: row.dataset.index === undefined ? null : Number(row.dataset.index),
            name: row.querySelector('.name').textContent,
            badge: row.querySelector('.badge').textContent,
            time: row.querySelector('.time').textContent,
            classes: [...row.classList],
            mark: getComputedStyle(row.querySelector('.name'), '::before').content[1],
            bar: (box => ({left: box.left, width: box.width}))(row.querySelector('.bar').getBoundingClientRect()),
        })).sort((a, b) => a.top - b.top)"""
    )
    return found


def tree(page: Page) -> list[str]:
    """Names, indented by their level."""
    return ["  " * (row["level"] - 1) + row["name"] for row in rows(page)]


def runs(page: Page) -> list[dict[str, Any]]:
    """The runs of the list that have an element, from above."""
    found: list[dict[str, Any]] = page.evaluate(
        """() => [...document.querySelectorAll('.run:not(.head)')].filter(row => !row.hidden).map(row => ({
            top: row.getBoundingClientRect().top,
            trace: row.dataset.trace,
            mark: row.querySelector('.mark [role=img]').textContent,
            state: row.querySelector('.mark [role=img]').getAttribute('aria-label'),
            name: row.querySelector('.link').textContent,
            spans: row.querySelector('.spans').textContent,
            errors: row.querySelector('.errors').textContent,
            time: row.querySelector('.time').textContent,
        })).sort((a, b) => a.top - b.top)"""
    )
    return found


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
