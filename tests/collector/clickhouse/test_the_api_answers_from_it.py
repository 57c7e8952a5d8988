"""What the API promises holds over ClickHouse: its own tests, with that store behind the collector."""

from __future__ import annotations

import pytest

from ..api import asking
from ..api.test_a_trace_is_shown_as_it_is import (
    test_a_skeleton_has_a_place_for_each_span_and_no_input_output_or_id,
    test_a_span_has_everything,
    test_export_delete_import_gives_the_same_tree,
    test_numbers_stay_while_spans_come_open_and_end,
    test_pages_follow_one_another_with_open_traces_among_them,
    test_pins_values_sessions_and_numbers,
    test_spans_are_found_by_what_they_hold,
)
from ..api.test_what_happens_is_told_at_once import (
    test_a_program_that_runs_is_seen_with_its_open_spans_and_their_end,
    test_a_trace_that_is_watched_is_shown_as_it_is_read,
    test_tail_prints_a_line_for_each_change,
    test_what_is_deleted_is_removed,
)
from ..store.stores import clickhouse_store

pytestmark = pytest.mark.anyio

__all__ = [
    "test_a_program_that_runs_is_seen_with_its_open_spans_and_their_end",
    "test_a_skeleton_has_a_place_for_each_span_and_no_input_output_or_id",
    "test_a_span_has_everything",
    "test_a_trace_that_is_watched_is_shown_as_it_is_read",
    "test_export_delete_import_gives_the_same_tree",
    "test_numbers_stay_while_spans_come_open_and_end",
    "test_pages_follow_one_another_with_open_traces_among_them",
    "test_pins_values_sessions_and_numbers",
    "test_spans_are_found_by_what_they_hold",
    "test_tail_prints_a_line_for_each_change",
    "test_what_is_deleted_is_removed",
]


@pytest.fixture(autouse=True)
def over_clickhouse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "SQLiteStore", clickhouse_store)
