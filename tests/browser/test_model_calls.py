"""What the instrumentations of models sent (see `tests/collector/capture.py`) is seen as the conversation that it was."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ..collector.processes import Served
from ..collector.test_payloads_of_real_sdks import MODELS, PAYLOADS, all_rows_of
from .seeing import Look
from .test_a_span import check_what_is_said
from .traces import post


def answered(url: str, name: str) -> str:
    """The address of the call that was answered with words, when all of it was sent."""
    for path in PAYLOADS:
        if path.name == f"{name}.pb":
            assert post(url, path.read_bytes()) == 200
        elif path.name == f"{name}.logs.pb":
            assert post(url, path.read_bytes(), path="/v1/logs") == 200
    *_, call = [row for row in all_rows_of(f"{name}.pb") if row.name == MODELS[name]]
    return f"{url}/trace/{call.trace_id.hex()}?span={call.span_id.hex()}"


@pytest.mark.parametrize("name", MODELS)
def test_a_call_of_a_model_is_shown_as_a_conversation(name: str, shared: Served, looking: Callable[..., Look]) -> None:
    look = looking(answered(shared.url, name))
    look.ready()
    look.page.locator(".tabs").wait_for()
    check_what_is_said(look)
    assert not look.complaints


def test_a_page_that_confuses_who_speaks_is_noticed(shared: Served, looking: Callable[..., Look]) -> None:
    """One that knows no dialect would be saved by the plain input, which holds the same messages."""
    changed = ("chat/messages.js", "const kind = String(ROLES[role] ?? role ?? fallback);", 'const kind = "user";')
    look = looking(answered(shared.url, "genai-attributes"), changed=changed)
    look.ready()
    look.page.locator(".tabs").wait_for()
    with pytest.raises(AssertionError):
        check_what_is_said(look)
