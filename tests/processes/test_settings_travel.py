"""The settings of a tracer go with what was bound to it; one that cannot is named, once, and nothing hangs."""

from __future__ import annotations

import contextlib
import pickle
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import asynctrace
from asynctrace import ConfigurationError, DeliveryOptions, DeliveryTimeout, Limits, TraceIdRatio, Tracer
from asynctrace.exporters import ConsoleExporter, FileExporter, MemoryExporter, OTLPExporter
from asynctrace.processes import ProcessPoolExecutor, environment
from asynctrace.runtime import _registry, _travel
from asynctrace.testing import FaultServer, ManualClock, SeededIds

PROGRAM = Path(__file__).parent / "programs" / "settings.py"


def said_by(way: str, method: str) -> list[str]:
    with FaultServer.in_thread() as server:
        command = [sys.executable, str(PROGRAM), way, method, server.url]
        program = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert program.returncode == 0, program.stderr
    return program.stdout.splitlines()


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_our_pool_tells_at_submit_which_part_cannot_go(method: str) -> None:
    (line,) = said_by("ours", method)
    assert line.startswith("exporters[1]._client.lock cannot be pickled for another process")


def test_another_pool_tells_it_by_the_task_and_goes_on() -> None:
    submitted, line = said_by("another", "spawn")
    assert submitted == "submitted"
    assert line.startswith("exporters[1]._client.lock cannot be pickled for another process")


@pytest.mark.parametrize("way", ["ours", "another"])
def test_a_forked_worker_needs_nothing_pickled(way: str) -> None:
    assert said_by(way, "fork") == ["submitted", "same trace True"]


def elsewhere(tracer: Tracer) -> Tracer:
    """As if it came to a process that knows no tracer."""
    pickled = pickle.dumps(tracer)
    alive, _registry._alive = _registry._alive, {}
    try:
        arrived = pickle.loads(pickled)
    finally:
        _registry._alive = alive
    assert isinstance(arrived, Tracer)
    return arrived


def check_settings_arrive(tracer: Tracer, arrived: Tracer) -> None:
    theirs, ours = tracer._settings, arrived._settings
    for field in ("service", "resource", "capacity_bytes", "capacity_spans", "when_full", "delivery", "journal"):
        assert getattr(ours, field) == getattr(theirs, field), field
    assert [name for name, _ in ours.exporters] == [name for name, _ in theirs.exporters]
    assert (arrived._limits, arrived._sampler) == (tracer._limits, tracer._sampler)
    assert arrived._shutdown_timeout == tracer._shutdown_timeout
    assert arrived._ids is not tracer._ids
    assert arrived._log_id != tracer._log_id, "a process has a log, and an instance, of its own"


def make_tracer(tmp_path: Path) -> Tracer:
    return Tracer(
        service="shop",
        exporters=[
            OTLPExporter("http://127.0.0.1:9", headers={"x-api-key": "k"}, timeout=3.0, compression="gzip"),
            FileExporter(tmp_path / "spans.jsonl"),
            ConsoleExporter(details=False),
            MemoryExporter(),
        ],
        journal=False,
        capacity_bytes=1 << 20,
        capacity_spans=1000,
        when_full="drop_oldest",
        shutdown_timeout=3.0,
        limits=Limits(attributes=7),
        sampler=TraceIdRatio(0.5),
        resource={"team": "tea"},
        delivery=DeliveryOptions(batch_spans=9),
        ids=SeededIds(1),
        clock=ManualClock(),
    )


def test_every_setting_but_clock_and_ids_arrives(tmp_path: Path) -> None:
    tracer = make_tracer(tmp_path)
    arrived = elsewhere(tracer)
    check_settings_arrive(tracer, arrived)
    otlp = arrived._settings.exporters[0][1]
    assert isinstance(otlp, OTLPExporter)
    assert (otlp.endpoint, otlp._settings.headers["x-api-key"]) == ("http://127.0.0.1:9", "k")
    assert (otlp._settings.timeout, otlp._settings.compression) == (3.0, "gzip")
    arrived.shutdown_sync()
    tracer.shutdown_sync()


def test_a_setting_that_stays_at_home_is_noticed(tmp_path: Path) -> None:
    tracer = make_tracer(tmp_path)
    del tracer._given["limits"]
    arrived = elsewhere(tracer)
    with pytest.raises(AssertionError):
        check_settings_arrive(tracer, arrived)
    arrived.shutdown_sync()
    tracer.shutdown_sync()


def test_what_comes_back_to_its_own_process_is_the_tracer_itself() -> None:
    with Tracer(service="shop", exporters=[MemoryExporter()], journal=False) as tracer:
        assert pickle.loads(pickle.dumps(tracer)) is tracer


def test_a_tracer_that_the_process_made_for_the_service_is_meant() -> None:
    with Tracer(service="shop of its own", exporters=[MemoryExporter()], journal=False) as tracer:
        described = _travel.describe(tracer)._replace(key="another")
        assert _travel.tracer_here(described) is tracer
        other = _travel.tracer_here(described._replace(service="another"))
        assert isinstance(other, Tracer)
        assert other is not tracer
        other.shutdown_sync()


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("mask", lambda key, text: text),
        ("on_drop", lambda notice: None),
        ("sampler", type("Mine", (), {"is_sampled": lambda *_: True})()),
    ],
)
def test_each_setting_that_cannot_go_is_named(setting: str, value: object) -> None:
    options: dict[str, Any] = {"exporters": [MemoryExporter()], setting: value}
    named = pytest.raises(ConfigurationError, match=rf"^{setting}\S* cannot be pickled for another process")
    with Tracer(service="shop", journal=False, **options) as tracer, named:
        _travel.check_travels(tracer)


def test_a_bound_function_of_a_tracer_that_is_missing_says_so_when_it_is_called() -> None:
    absent = _travel.Absent("exporters[0]._lock cannot be pickled for another process: …")
    from asynctrace.tracing._bind import Continued

    continued = Continued(print, absent, None, False)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match=r"exporters\[0\]\._lock"):
        continued()


def test_a_pool_takes_a_tracer_for_where_nothing_is_current() -> None:
    with FaultServer.in_thread() as server:
        exporter = OTLPExporter(server.url)
        with (
            Tracer(service="shop", exporters=[exporter], journal=False) as tracer,
            ProcessPoolExecutor(1, tracer=tracer) as pool,
        ):
            assert pool.submit(threading.active_count).result(60) >= 1
        assert server.requests == [], "nothing was traced, so nothing is sent"


def test_the_environment_of_a_program_names_the_current_span_and_no_older_one() -> None:
    with Tracer(service="shop", exporters=[MemoryExporter()], journal=False) as tracer:
        assert environment({"TRACEPARENT": "old", "PATH": "/bin"}) == {"PATH": "/bin"}
        with tracer.trace("job"), tracer.trace_component("ask") as component:
            variables = environment({"TRACEPARENT": "old", "PATH": "/bin"})
            assert variables["TRACEPARENT"] == f"00-{component.trace_id}-{component.span_id}-03"
            context = asynctrace.extract(variables)
        assert (context.trace_id, context.span_id) == (component.trace_id, component.span_id)


def seconds_to_end_a_task(url: str, **options: Any) -> float:
    """Of a task elsewhere: what counts as elsewhere is another process number."""
    with Tracer(service="shop", exporters=[OTLPExporter(url)], shutdown_timeout=2.0, **options) as tracer:
        with tracer.trace("job"):
            pass
        wait_for_a_failure(tracer)
        began = time.monotonic()
        tracer._task_ended()
        return time.monotonic() - began


def wait_for_a_failure(tracer: Tracer) -> None:
    deadline = time.monotonic() + 20
    with contextlib.suppress(DeliveryTimeout):
        tracer.flush_sync(0.1)
    while not any(lane.state == "backoff" for lane in tracer.statistics().lanes.values()):
        assert time.monotonic() < deadline, "the far side is there"
        time.sleep(0.005)


def test_a_task_does_not_wait_for_a_far_side_that_is_away_where_a_journal_keeps_its_spans(tmp_path: Path) -> None:
    waited_for_the_journal = seconds_to_end_a_task("http://127.0.0.1:1", journal=tmp_path)
    waited_in_memory = seconds_to_end_a_task("http://127.0.0.1:1", journal=False)
    assert waited_in_memory >= 2.0, "what is in memory alone is worth the time"
    assert waited_for_the_journal < waited_in_memory / 2
