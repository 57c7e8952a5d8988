"""What OpenTelemetry's API promises instrumentations, and what a provider of asynctrace's adds to it."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import context, trace
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, StatusCode

import asynctrace
from asynctrace import MisuseError, Span, Tracer
from asynctrace._contracts import Ending
from asynctrace.exporters import MemoryExporter
from asynctrace.opentelemetry import TracerProvider
from asynctrace.testing import ManualClock
from asynctrace.testing._faults import FaultServer, Status
from asynctrace.tracing import current_component

from ..tracing.recording import Recording


def otel(recording: Recording, name: str = "library", **scope: Any) -> trace.Tracer:
    return TracerProvider(recording.tracer).get_tracer(name, **scope)  # type: ignore[arg-type]


def only(recording: Recording) -> Span:
    (span,) = recording.spans
    return span


# Spans -------------------------------------------------------------------------------------------------------------


class Odd:
    def __str__(self) -> str:
        return "odd"


def test_attributes_of_types_that_the_api_does_not_allow_are_kept_as_texts_or_left_out() -> None:
    recording = Recording()
    with otel(recording).start_as_current_span("span", attributes={"a": Odd(), 5: "left out", "": 1}) as span:  # type: ignore[dict-item]
        span.set_attribute("b", Odd())  # type: ignore[arg-type]
        span.set_attribute(7, 1)  # type: ignore[arg-type]
        span.set_attributes({"c": None, None: 2})  # type: ignore[dict-item]
        span.set_attributes(5)  # type: ignore[arg-type]
        span.add_event("event", {3: 4, "kept": Odd()})  # type: ignore[dict-item]
        span.add_link("no context")  # type: ignore[arg-type]
        span.set_status("no status")  # type: ignore[arg-type]
        span.update_name(5)  # type: ignore[arg-type]
    recorded = only(recording)
    assert recorded.name == "5"
    assert {"a", "b", "c"} <= set(recorded.attributes)
    assert not {"", "5", "7", "None"} & set(recorded.attributes)
    assert recorded.attributes["c"] is None
    assert "Odd" in str(recorded.attributes["a"])
    assert list(recorded.events[0].attributes) == ["kept"]
    assert not recording.tracer._errors


def test_secrets_are_masked_here_too() -> None:
    recording = Recording()
    with otel(recording).start_as_current_span("span") as span:
        span.set_attribute("password", "hunter2")
        span.add_event("login", {"api_key": "sk-1234567890"})
    assert "hunter2" not in repr(recording.spans)
    assert "sk-1234567890" not in repr(recording.spans)


def test_a_span_that_has_ended_takes_nothing_and_ends_once() -> None:
    recording = Recording()
    span = otel(recording).start_span("span")
    span.end()
    span.set_attribute("late", 1)
    span.add_event("late")
    span.update_name("late")
    span.record_exception(ValueError("late"))
    span.set_status(StatusCode.ERROR)
    span.end()
    assert not span.is_recording()
    recorded = only(recording)
    assert (recorded.name, recorded.events, recorded.status) == ("span", (), 0)
    assert recording.tracer._late_calls["end"] == 1


def test_ids_are_valid_and_flags_say_whether_it_is_recorded() -> None:
    recording = Recording()
    span = otel(recording).start_span("span")
    span_context = span.get_span_context()
    span.end()
    recorded = only(recording)
    assert trace.format_trace_id(span_context.trace_id) == recorded.trace_id
    assert trace.format_span_id(span_context.span_id) == recorded.span_id
    assert (span_context.is_valid, span_context.is_remote, int(span_context.trace_flags)) == (True, False, 1)
    assert span.get_span_context() is span_context
    unsampled = otel(Recording(sampler=asynctrace.ALWAYS_OFF)).start_span("not").get_span_context()
    assert (unsampled.is_valid, int(unsampled.trace_flags)) == (True, 0)


@pytest.mark.parametrize("ids", [(0, 0), (0, 1), (1, 0)])
def test_an_invalid_parent_is_none(ids: tuple[int, int]) -> None:
    recording = Recording()
    parent = NonRecordingSpan(SpanContext(*ids, is_remote=True))
    otel(recording).start_span("span", context=trace.set_span_in_context(parent)).end()
    assert only(recording).parent_id == ""


def test_what_instrumentations_read_of_a_span_can_be_read() -> None:
    recording = Recording()
    tracer = otel(recording)
    with tracer.start_as_current_span("around") as around:
        span: Any = tracer.start_span("span", kind=SpanKind.SERVER, attributes={"a": 1, "b": [1, 2]})
        span.set_status(StatusCode.ERROR, "bad")
        assert (span.name, span.kind, span.status.description) == ("span", SpanKind.SERVER, "bad")
        assert dict(span.attributes) == {"a": 1, "b": [1, 2]}
        assert span.parent.span_id == around.get_span_context().span_id
        assert around.parent is None  # type: ignore[attr-defined]
        assert span.context is span.get_span_context()
        assert "span" in repr(span)
        span.end()


def test_a_span_that_nobody_ends_ends_abandoned() -> None:
    """opentelemetry-sdk never records it."""
    recording = Recording()
    otel(recording).start_span("lost")
    gc.collect()
    recording.tracer._open.sift()
    gc.collect()
    assert only(recording).ending == Ending.ABANDONED


def left_by(exc: BaseException, **options: Any) -> Span:
    recording = Recording()
    with pytest.raises(type(exc)), otel(recording).start_as_current_span("span", **options):
        raise exc
    return only(recording)


@pytest.mark.parametrize(
    ("exc", "options", "ending", "status", "events"),
    [
        (ValueError("no"), {}, "error", (2, "ValueError: no"), 1),
        (TimeoutError("late"), {}, "timeout", (2, "TimeoutError: late"), 1),
        (ValueError("no"), {"record_exception": False}, "error", (2, "ValueError: no"), 0),
        (ValueError("no"), {"set_status_on_exception": False}, "ok", (0, ""), 1),
        (asyncio.CancelledError(), {}, "cancelled", (0, ""), 0),
        (KeyboardInterrupt(), {}, "cancelled", (0, ""), 0),
        (GeneratorExit(), {}, "abandoned", (0, ""), 0),
        (SystemExit(1), {}, "error", (2, ""), 0),
    ],
)
def test_the_ending_says_what_left_the_block(
    exc: BaseException, options: dict[str, Any], ending: str, status: tuple[int, str], events: int
) -> None:
    span = left_by(exc, **options)
    assert (span.ending, (span.status, span.status_message), len(span.events)) == (ending, status, events)


def test_a_cancelled_span_is_no_error_where_it_was_only_started() -> None:
    recording = Recording()
    with pytest.raises(asyncio.CancelledError), otel(recording).start_span("span"):
        raise asyncio.CancelledError
    assert (only(recording).ending, only(recording).status) == ("cancelled", 0)


def test_it_decorates_functions_and_coroutine_functions() -> None:
    recording = Recording()
    tracer = otel(recording)

    @tracer.start_as_current_span("plain")
    def plain(n: int) -> int:
        """Its own."""
        assert current_component() is not None
        return n + 1

    @tracer.start_as_current_span("waits")
    async def waits() -> str:
        await asyncio.sleep(0)
        span = trace.get_current_span()
        assert span.is_recording()
        return "done"

    assert (plain(1), plain(2), plain.__doc__) == (2, 3, "Its own.")
    assert asyncio.run(waits()) == "done"
    assert [span.name for span in recording.spans] == ["plain", "plain", "waits"]


def test_a_span_can_outlive_its_block() -> None:
    recording = Recording()
    with otel(recording).start_as_current_span("span", end_on_exit=False) as span:
        pass
    assert current_component() is None
    assert recording.spans == ()
    span.set_attribute("after", 1)
    span.end()
    assert only(recording).attributes["after"] == 1


def test_times_are_those_that_were_given() -> None:
    recording = Recording(clock=ManualClock())
    tracer = otel(recording)
    span = tracer.start_span("span", start_time=1_000, links=[Link(SpanContext(1, 2, is_remote=True), {"a": 1})])
    span.add_event("event", timestamp=1_500)
    span.end(2_000)
    recorded = only(recording)
    assert (recorded.start_ns, recorded.events[0].time_ns, recorded.end_ns) == (1_000, 1_500, 2_000)
    assert (recorded.links[0].trace_id, recorded.links[0].flags) == (f"{1:032x}", 0x300)


# Providers ---------------------------------------------------------------------------------------------------------


def test_spans_carry_the_scope_of_their_tracer() -> None:
    recording = Recording()
    otel(recording, "library", instrumenting_library_version="2", schema_url="https://e.org/1").start_span("a").end()
    otel(recording, "other", attributes={"tier": 1, "odd": Odd()}).start_span("b").end()
    otel(recording, None).start_span("c").end()  # type: ignore[arg-type]
    with recording.tracer.trace_component("d"):
        pass
    scopes = [
        {key: value for key, value in span.attributes.items() if key.startswith("otel.")} for span in recording.spans
    ]
    assert scopes == [
        {"otel.scope.name": "library", "otel.scope.version": "2", "otel.scope.schema_url": "https://e.org/1"},
        {"otel.scope.name": "other", "otel.scope.attributes.tier": 1, "otel.scope.attributes.odd": "odd"},
        {"otel.scope.name": ""},
        {},
    ]


@pytest.fixture
def default_exporter() -> Iterator[MemoryExporter]:
    exporter = MemoryExporter()
    before = asynctrace.runtime._registry.set_default(None)  # type: ignore[attr-defined]
    yield exporter
    left = asynctrace.runtime._registry.set_default(before)  # type: ignore[attr-defined]
    if left is not None:
        left.shutdown_sync()


def test_none_is_the_default_tracer_whichever_that_is_when_a_span_starts(default_exporter: MemoryExporter) -> None:
    provider = TracerProvider()
    tracer = provider.get_tracer("library")
    assert provider.recorder is None, "a provider and its tracers make no tracer yet"
    asynctrace.configure(service="shop", exporters=[default_exporter], journal=False)
    tracer.start_span("span").end()
    asynctrace.flush_sync()
    assert [span.name for span in default_exporter.spans] == ["span"]


def test_what_is_no_tracer_is_refused() -> None:
    with pytest.raises(TypeError, match=r"takes an asynctrace\.Tracer, not str"):
        TracerProvider("shop")  # type: ignore[arg-type]


def test_what_belongs_to_the_sdk_is_not_there_and_says_what_is() -> None:
    provider: Any = TracerProvider(Recording().tracer)  # type: ignore[arg-type]
    assert not hasattr(provider, "add_span_processor")
    with pytest.raises(AttributeError, match="exporters of the tracer"):
        provider.add_span_processor(object())


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer.in_thread() as running:
        yield running


def test_force_flush_is_true_only_if_the_receipt_is_complete(server: FaultServer) -> None:
    with Tracer(service="shop", exporters=[asynctrace.exporters.OTLPExporter(server.url)], journal=False) as tracer:
        provider = TracerProvider(tracer)
        library = provider.get_tracer("library")
        library.start_span("accepted").end()
        assert provider.force_flush() is True
        assert tracer.receipt().accepted == 1
        server.plan(Status(400))
        library.start_span("refused").end()
        assert provider.force_flush() is False
        assert tracer.receipt().rejected == 1


def test_force_flush_is_false_when_the_time_is_over(server: FaultServer) -> None:
    server.plan(*[Status(503)] * 20)
    tracer = Tracer(
        service="shop",
        exporters=[asynctrace.exporters.OTLPExporter(server.url)],
        journal=False,
        shutdown_timeout=0.1,
    )
    provider = TracerProvider(tracer)
    provider.get_tracer("library").start_span("span").end()
    assert provider.force_flush(timeout_millis=50) is False
    provider.shutdown()
    assert not provider.get_tracer("library").start_span("after").is_recording()


def test_in_a_running_loop_it_claims_nothing_and_shutdown_names_the_call_that_waits() -> None:
    async def main() -> None:
        async with Tracer(service="shop", exporters=[MemoryExporter()], journal=False) as tracer:
            provider = TracerProvider(tracer)
            provider.get_tracer("library").start_span("span").end()
            assert provider.force_flush() is False
            await tracer.flush()
            assert provider.force_flush() is True
            with pytest.raises(MisuseError, match="await"):
                provider.shutdown()

    asyncio.run(main())


def in_a_program(text: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", text], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_global_api_does_nothing_until_the_program_sets_the_provider() -> None:
    said = in_a_program(
        "from opentelemetry import trace\n"
        "from asynctrace import Tracer\n"
        "from asynctrace.exporters import MemoryExporter\n"
        "from asynctrace.opentelemetry import TracerProvider\n"
        "exporter = MemoryExporter()\n"
        "tracer = Tracer(service='shop', exporters=[exporter], journal=False)\n"
        "early = trace.get_tracer('early')\n"
        "provider = TracerProvider(tracer)\n"
        "early.start_span('nowhere').end()\n"
        "with early.start_as_current_span('nowhere') as span: print(span.is_recording())\n"
        "trace.set_tracer_provider(provider)\n"
        "with early.start_as_current_span('here') as span: print(span.is_recording())\n"
        "trace.get_tracer('late').start_span('here too').end()\n"
        "tracer.shutdown_sync()\n"
        "print([span.name for span in exporter.spans])\n"
    )
    assert said.split("\n")[:3] == ["False", "True", "['here', 'here too']"]


def test_importing_asynctrace_loads_nothing_of_opentelemetry() -> None:
    said = in_a_program(
        "import sys, asynctrace, asynctrace.runtime\n"
        "print('opentelemetry' in sys.modules)\n"
        "asynctrace.opentelemetry.TracerProvider\n"
        "print('opentelemetry' in sys.modules, 'opentelemetry.sdk' in sys.modules)\n"
    )
    assert said.split() == ["False", "True", "False"]


def test_without_the_package_it_says_what_to_install() -> None:
    said = in_a_program(
        "import sys\n"
        "sys.modules['opentelemetry'] = None\n"
        "try:\n"
        "    import asynctrace.opentelemetry\n"
        "except ImportError as error:\n"
        "    print(error)\n"
    )
    assert "pip install 'asynctrace[opentelemetry]'" in said


def test_a_forked_child_goes_on_below_the_span_and_does_not_end_it() -> None:
    said = in_a_program(
        "import os, sys\n"
        "from opentelemetry import trace\n"
        "from asynctrace import Tracer\n"
        "from asynctrace.exporters import MemoryExporter\n"
        "from asynctrace.opentelemetry import TracerProvider\n"
        "exporter = MemoryExporter()\n"
        "tracer = Tracer(service='shop', exporters=[exporter], journal=False)\n"
        "library = TracerProvider(tracer).get_tracer('library')\n"
        "with library.start_as_current_span('around') as around, tracer.trace_component('component') as component:\n"
        "    with trace.use_span(library.start_span('used'), end_on_exit=True):\n"
        "        pid = os.fork()\n"
        "    library.start_span('inside').end()\n"
        "tracer.flush_sync()\n"
        "(inside,) = [span for span in exporter.spans if span.name == 'inside']\n"
        "assert inside.parent_id == component.span_id\n"
        "names = sorted(span.name for span in exporter.spans)\n"
        "if pid == 0:\n"
        "    os._exit(0 if names == ['inside'] else 9)\n"
        "assert names == ['around', 'component', 'inside', 'used'], names\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))\n"
        "tracer.shutdown_sync()\n"
    )
    assert said.split() == ["0"]


def test_a_context_made_before_any_provider_is_as_good() -> None:
    kept = context.Context()
    recording = Recording()
    with recording.tracer.trace_component("component"):
        otel(recording).start_span("root", context=kept).end()
    assert recording.spans[0].parent_id == ""
