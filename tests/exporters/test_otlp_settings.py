"""OTLPExporter's settings: where it sends, what it refuses, what it never shows."""

from __future__ import annotations

import subprocess
import sys
import traceback

import pytest

from asynctrace._contracts import Exporter
from asynctrace._errors import ConfigurationError
from asynctrace.exporters import OTLPExporter
from asynctrace.exporters._endpoint import parse_endpoint
from asynctrace.testing._faults import FaultServer

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("http://h:4318", "http://h:4318/v1/traces"),
        ("http://h:4318/", "http://h:4318/v1/traces"),
        ("http://h/otel", "http://h/otel"),
        ("http://h/otel/", "http://h/otel/"),
        ("https://h/a%2Fb?key=1", "https://h/a%2Fb?key=1"),
        ("HTTP://Host:1", "http://host:1/v1/traces"),
        ("http://[::1]:4318", "http://[::1]:4318/v1/traces"),
        ("http://user:pass@h", "http://h/v1/traces"),
    ],
)
def test_a_url_without_a_path_gets_one_and_a_path_is_used_as_it_is(given: str, used: str) -> None:
    assert parse_endpoint(given).url == used


@pytest.mark.parametrize("path", ["/v1/traces", "/api/public/otel/v1/traces?project=a%20b", "/trailing/"])
async def test_the_path_on_the_wire_is_the_one_given(make_batch, path: str) -> None:
    async with FaultServer() as server:
        exporter = OTLPExporter(server.url + path)
        await exporter.export(make_batch())
        await exporter.aclose()
    assert server.requests[0].path == path


@pytest.mark.parametrize(
    ("endpoint", "named"),
    [
        ("", "endpoint is empty"),
        ("127.0.0.1:4318", "scheme"),
        ("localhost:4318", "scheme"),
        ("ftp://h", "scheme"),
        ("grpc://h:4317", "scheme"),
        ("http://", "host"),
        ("http://:4318", "host"),
        ("http:///v1/traces", "host"),
        ("http://[::1", "host"),
        ("http://h:0", "port"),
        ("http://h:65536", "port"),
        ("http://h:port", "port"),
        ("http://h:", "port"),
        ("http://h /x", "space"),
        ("http://h\r\nX: y", "control"),
    ],
)
def test_an_endpoint_that_cannot_work_is_refused_by_name(endpoint: str, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        OTLPExporter(endpoint)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"headers": {"x-a": "1\r\nx-b: 2"}}, "x-a.*newline"),
        ({"headers": {"x-a": "日本"}}, "x-a.*Latin-1"),
        ({"headers": {"x a": "1"}}, "name"),
        ({"headers": {"": "1"}}, "name"),
        ({"headers": {"Content-Length": "1"}}, "Content-Length"),
        ({"timeout": -1}, "timeout"),
        ({"timeout": 0}, "timeout"),
        ({"timeout": float("nan")}, "timeout"),
        ({"timeout": float("inf")}, "timeout"),
        ({"compression": "brotli"}, "compression"),
        ({"encoding": "xml"}, "encoding"),
        ({"ca_file": "/nowhere/ca.pem"}, "ca_file"),
    ],
)
def test_a_setting_that_cannot_work_is_refused_by_name(settings, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named):
        OTLPExporter("http://h", **settings)


@pytest.mark.parametrize(
    "settings",
    [{"headers": "a=b"}, {"headers": {"x": 1}}, {"headers": {1: "x"}}, {"timeout": "10"}, {"timeout": True}],
)
def test_a_setting_of_the_wrong_type_is_a_type_error(settings) -> None:
    with pytest.raises(TypeError):
        OTLPExporter("http://h", **settings)
    with pytest.raises(TypeError):
        OTLPExporter(4318)  # type: ignore[arg-type]


def test_zstd_needs_its_package(monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"asynctrace\[zstd\]"):
        OTLPExporter("http://h", compression="zstd")


@pytest.mark.parametrize(
    "make",
    [
        lambda: OTLPExporter("http://me:hunter2@h/?k=hunter2", headers={"x-key": "hunter2"}),
        lambda: OTLPExporter("http://me:hunter2@h:port"),
        lambda: OTLPExporter("http://me:hunter2/@h"),
        lambda: OTLPExporter("http://me:hunter2@[::1"),
        lambda: OTLPExporter("hunter2://me:hunter2@h"),
        lambda: OTLPExporter("http://h", headers={"x-key": "hunter2\n"}),
        lambda: OTLPExporter("http://h", headers={"x-key": "hunter2日"}),
        lambda: OTLPExporter("http://h", headers={"Bearer hunter2": ""}),
    ],
)
def test_no_credential_is_in_a_repr_or_a_message(make) -> None:
    try:
        shown = repr(make())
    except ConfigurationError:
        shown = traceback.format_exc(limit=0)  # with its causes
    assert "hunter2" not in shown
    assert "OTLPExporter(" in shown or "ConfigurationError" in shown


async def test_headers_user_agent_and_key_are_sent(make_batch) -> None:
    async with FaultServer() as server:
        exporter = OTLPExporter(server.url, headers={"X-Api-Key": "k", "x-latin": "é"})
        await exporter.export(make_batch(key="batch-7"))
        await exporter.aclose()
    (request,) = server.requests
    assert request.headers["x-api-key"] == "k"
    assert request.headers["user-agent"].startswith("asynctrace/")
    assert request.key == "batch-7"
    assert request.headers["content-type"] == "application/x-protobuf"


async def test_user_and_password_in_the_url_become_basic_authentication(make_batch) -> None:
    async with FaultServer() as server:
        exporter = OTLPExporter(server.url.replace("//", "//me:p%40ss@"))
        await exporter.export(make_batch())
        await exporter.aclose()
    assert server.requests[0].headers["authorization"] == "Basic bWU6cEBzcw=="


# defaults from elsewhere


async def test_defaults_fill_in_only_what_was_left_open(make_batch) -> None:
    async with FaultServer() as server:
        exporter = OTLPExporter(headers={"x-own": "1"}).with_defaults(
            endpoint=server.url, headers={"x-env": "2"}, timeout=0.5, compression="gzip"
        )
        await exporter.export(make_batch())
        await exporter.aclose()
    (request,) = server.requests
    assert "x-own" in request.headers
    assert "x-env" not in request.headers
    assert request.headers["content-encoding"] == "gzip"


async def test_what_was_given_wins_over_defaults(make_batch) -> None:
    async with FaultServer() as server:
        exporter = OTLPExporter(server.url, headers={}, timeout=5.0, compression="none")
        exporter.with_defaults(endpoint="http://127.0.0.1:9", headers={"x-env": "2"}, timeout=0.001, compression="gzip")
        result = await exporter.export(make_batch())
        await exporter.aclose()
    assert result.accepted == 3
    assert "x-env" not in server.requests[0].headers
    assert "content-encoding" not in server.requests[0].headers


def test_defaults_do_not_pile_up_and_are_checked() -> None:
    exporter = OTLPExporter().with_defaults(endpoint="http://other:1")
    assert exporter.endpoint == "http://other:1"
    assert exporter.with_defaults().endpoint == "http://127.0.0.1:4318"
    with pytest.raises(ConfigurationError, match="compression"):
        exporter.with_defaults(compression="lz4")


def test_it_is_an_exporter_with_a_name() -> None:
    assert isinstance(OTLPExporter(name="mine"), Exporter)
    assert OTLPExporter(name="mine").name == "mine"


# what it loads


def loaded_by(program: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", f"{program}\nimport sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_constructing_loads_no_http_client() -> None:
    modules = loaded_by("from asynctrace.exporters import OTLPExporter; OTLPExporter('https://h')")
    assert not modules & {"aiohttp", "structlog", "zstandard", "yarl"}
    assert "asynctrace.exporters._otlp" in modules


def test_the_check_for_lazy_loading_catches_an_eager_import() -> None:
    assert "aiohttp" in loaded_by("import asynctrace.exporters._transport")


def test_an_exporter_that_is_not_named_is_not_loaded() -> None:
    modules = loaded_by("import asynctrace.exporters as e; e.MemoryExporter")
    assert "asynctrace.exporters._memory" in modules
    assert "asynctrace.exporters._otlp" not in modules
