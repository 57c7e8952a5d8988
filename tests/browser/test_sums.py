"""Statistics and sessions on the page are of what the query finds."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ..collector.processes import Served
from .seeing import Look
from .traces import Span, Trace, encode, just_now, post


def send(url: str) -> None:
    for number, session in ((0xC001, "s-tea"), (0xC002, "s-coffee")):
        trace = Trace(number, just_now())
        root = trace.add(Span("checkout", 0, 1500, attributes={"session.id": session}))
        trace.add(Span("pay", 100, 1250, root, status=2))
        assert post(url, encode(trace)) == 200
    still_open = Trace(0xC003, just_now())
    still_open.add(Span("checkout", 0, None, attributes={"session.id": "s-tea"}))
    assert post(url, encode(still_open)) == 200


def check_statistics_obey_the_query(look: Look, url: str) -> None:
    page = look.page
    for query, wanted in (("", {"checkout 2", "pay 2"}), ("session:s-tea status:error", {"pay 1"})):
        page.goto(f"{url}/stats?since=1h&q={query}")

        def shown() -> set[str]:
            return {" ".join(row.split()[:2]) for row in page.locator(".figures tbody tr").all_inner_texts()}

        look.shows(lambda wanted=wanted: shown() == wanted, shown)  # type: ignore[misc]
    assert page.get_by_role("combobox", name="Filter spans").or_(page.get_by_label("Filter spans")).count()


def test_statistics_obey_the_query(own: Served, looking: Callable[..., Look]) -> None:
    send(own.url)
    look = looking("about:blank")
    check_statistics_obey_the_query(look, own.url)
    assert not look.complaints


def test_sessions_say_what_is_open(own: Served, looking: Callable[..., Look]) -> None:
    send(own.url)
    look = looking(f"{own.url}/sessions?q=is:open")
    look.shows(lambda: look.page.locator(".plain-table tbody tr").count() == 1)
    assert look.page.locator(".plain-table tbody th").inner_text() == "s-tea"
    assert look.page.locator('td[title="1 open"]').count() == 1


def test_a_page_that_does_not_pass_the_query_on_is_noticed(own: Served, looking: Callable[..., Look]) -> None:
    send(own.url)
    look = looking("about:blank", changed=("screens/statistics.js", "{ q: query, by", "{ by"))
    with pytest.raises(AssertionError):
        check_statistics_obey_the_query(look, own.url)
