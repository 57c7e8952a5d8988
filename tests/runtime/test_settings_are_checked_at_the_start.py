"""What cannot work is one clear error, at the call that made it, and names the setting or the variable."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import asynctrace
from asynctrace import ConfigurationError, JournalOptions, MisuseError, Tracer
from asynctrace.exporters import MemoryExporter, OTLPExporter
from asynctrace.runtime._environment import read_environment


@pytest.fixture(autouse=True)
def _nothing_stays_behind() -> Iterator[None]:
    yield
    asynctrace.shutdown_sync(timeout=1.0)


WRONG_ARGUMENTS: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "a sampler by name": ({"sampler": "always_on"}, TypeError, "sampler"),
    "a ratio as sampler": ({"sampler": 0.5}, TypeError, "sampler"),
    "a propagator that is none": ({"propagators": ["jaeger"]}, ConfigurationError, "tracecontext"),
    "a propagator by name": ({"propagators": "b3"}, TypeError, "propagators"),
    "a number as clock": ({"clock": 3}, TypeError, "clock"),
    "a list as ids": ({"ids": []}, TypeError, "ids"),
    "a class as exporter": ({"exporters": [MemoryExporter]}, TypeError, "exporter"),
    "one exporter": ({"exporters": MemoryExporter()}, TypeError, "list"),
    "no capacity": ({"capacity_bytes": 1}, ConfigurationError, "capacity_bytes"),
    "a text as capacity": ({"capacity_bytes": "64 MB"}, TypeError, "capacity_bytes"),
    "a negative timeout": ({"shutdown_timeout": -1}, ConfigurationError, "shutdown_timeout"),
    "an unknown policy": ({"when_full": "explode"}, ConfigurationError, "when_full"),
    "a number as journal": ({"journal": 3}, TypeError, "journal"),
    "no path as journal": ({"journal": ""}, TypeError, "journal"),
    "syncing all the time": ({"sync": 0}, ConfigurationError, "sync"),
    "a text as interval": ({"sync": "often"}, TypeError, "sync"),
    "a policy that needs a journal": ({"when_full": "journal", "journal": False}, ConfigurationError, "journal"),
    "a list as resource": ({"resource": ["a"]}, TypeError, "resource"),
    "a number as service": ({"service": 3}, TypeError, "service"),
    "a text as limits": ({"limits": "small"}, TypeError, "limits"),
}


@pytest.mark.parametrize("mistake", WRONG_ARGUMENTS)
def test_a_wrong_argument_is_an_error_at_once(mistake: str) -> None:
    options, error, hint = WRONG_ARGUMENTS[mistake]
    with pytest.raises(error, match=hint):
        Tracer(**{"service": "shop", "exporters": [], **options})


@pytest.mark.parametrize(
    ("field", "value"),
    [("capacity_bytes", 1024), ("capacity_bytes", "256 MB"), ("max_age", 0), ("max_age", "a day"), ("path", 3)],
)
def test_a_wrong_bound_of_a_journal_is_an_error_at_once(field: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=field):
        JournalOptions(**{field: value})


WRONG_VARIABLES = {
    "OTEL_EXPORTER_OTLP_ENDPOINT": ["nowhere", "http://localhost:abc", "http://[::1", "ftp://h"],
    "OTEL_EXPORTER_OTLP_HEADERS": ["no pairs", "a b=c", "a=b%0d%0aX: y"],
    "OTEL_EXPORTER_OTLP_TIMEOUT": ["soon", "-1", "0", "1.5"],
    "OTEL_EXPORTER_OTLP_COMPRESSION": ["brotli"],
    "OTEL_EXPORTER_OTLP_PROTOCOL": ["carrier-pigeon"],
    "OTEL_EXPORTER_OTLP_CERTIFICATE": ["/there/is/none"],
    "OTEL_RESOURCE_ATTRIBUTES": ["no pairs"],
    "OTEL_TRACES_SAMPLER": ["sometimes"],
    "OTEL_TRACES_SAMPLER_ARG": ["2", "many"],
}


@pytest.mark.parametrize(
    ("variable", "value"), [(variable, value) for variable, values in WRONG_VARIABLES.items() for value in values]
)
def test_a_wrong_variable_is_named(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    if variable == "OTEL_TRACES_SAMPLER_ARG":
        monkeypatch.setenv("OTEL_TRACES_SAMPLER", "traceidratio")
    with pytest.raises(ConfigurationError) as caught:
        Tracer()
    assert str(caught.value).startswith(variable), caught.value
    assert str(caught.value).count("OTEL_") == 1, caught.value


def test_a_secret_in_a_variable_is_in_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization: Bearer s3cr3t")
    with pytest.raises(ConfigurationError) as caught:
        Tracer()
    assert "s3cr3t" not in str(caught.value)


def test_the_standard_variables_are_honoured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "from the environment")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9/base/")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=a%20b,y=c")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "2500")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "parentbased_always_off")
    found = read_environment()
    assert (found.endpoint, found.timeout) == ("http://127.0.0.1:9/base/v1/traces", 2.5)
    assert found.headers == {"x-key": "a b", "y": "c"}
    assert Tracer(exporters=[]).service == "from the environment"
    assert Tracer("explicit", exporters=[]).service == "explicit"
    assert Tracer(exporters=[], resource={"service.name": "in the resource"}).service == "in the resource"


@pytest.mark.parametrize(
    ("said", "written"),
    [
        ("", {"traceparent", "baggage"}),
        ("tracecontext", {"traceparent"}),
        ("B3, tracecontext ,b3", {"b3", "traceparent"}),
        ("b3multi", {"x-b3-traceid", "x-b3-spanid", "x-b3-sampled"}),
        ("none", set()),
        ("baggage,none", set()),
        ("xray", {"traceparent", "baggage"}),
        ("xray,b3", {"b3"}),
    ],
)
def test_propagators_of_the_environment_are_used_and_unknown_ones_told_of(
    said: str, written: set[str], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OTEL_PROPAGATORS", said)
    with Tracer("shop", [MemoryExporter()], journal=False) as tracer, tracer.trace("run") as run:
        run.set_baggage("a", "1")
        headers: dict[str, str] = {}
        tracer.inject(headers)
    assert set(headers) == written
    assert capfd.readouterr().err.count("runtime.unknown_propagator") == said.count("xray")


def test_explicit_propagators_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_PROPAGATORS", "xray,b3")
    with Tracer("shop", [MemoryExporter()], journal=False, propagators=["tracecontext"]) as tracer, tracer.trace("run"):
        headers: dict[str, str] = {}
        tracer.inject(headers)
    assert set(headers) == {"traceparent"}


def test_an_explicit_endpoint_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    exporter = OTLPExporter("http://127.0.0.1:4318")
    Tracer("shop", [exporter])
    assert exporter.endpoint == "http://127.0.0.1:4318"


def test_a_disabled_sdk_records_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    tracer = Tracer("shop", [MemoryExporter()])
    with tracer.trace("run"), tracer.trace_component("step") as component:
        component.set_outputs("tea")
    assert tracer.receipt().ended == 0


def test_a_sampler_that_raises_costs_no_more_than_its_decision() -> None:
    class Broken:
        def is_sampled(self, trace_id: bytes, name: str, remote_decision: bool | None) -> bool:
            raise RuntimeError("no opinion")

    tracer = Tracer("shop", [], sampler=Broken())
    with tracer.trace("run"), tracer.trace_component("step"):
        pass
    assert tracer.statistics().internal_errors == {"RuntimeError": 1}
    assert tracer.statistics().appended == 2


async def _enter(tracer: Tracer) -> None:
    with tracer:
        pass


def test_plain_with_inside_a_loop_is_refused() -> None:
    import asyncio

    with pytest.raises(MisuseError, match="async with"):
        asyncio.run(_enter(Tracer("shop", [])))
