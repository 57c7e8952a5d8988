"""A program that cannot work as it was told does not start: one line that says what to change, no secret, status 2."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from asynctrace.cli import main
from asynctrace.collector.fleet import masked

from ...stream.servers import Servers

SECRET = "s3cret-w0rd"
NOBODY = "redis://127.0.0.1:1"

LineOf = Callable[..., str]


@pytest.fixture
def line_of(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[LineOf]:
    """What a program says that does not start."""

    def line_of(*arguments: str, **environment: str) -> str:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        status = main(arguments)
        said, complained = capsys.readouterr()
        assert (status, said) == (2, ""), complained
        (line,) = complained.splitlines()
        assert line.startswith("asynctrace: ")
        assert SECRET not in line
        return line

    for name in [name for name in os.environ if name.startswith("ASYNCTRACE_")]:
        monkeypatch.delenv(name)
    thresholds = gc.get_threshold()
    yield line_of
    gc.set_threshold(*thresholds)


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("ingest",), "--stream or ASYNCTRACE_STREAM is missing"),
        (("worker", "--stream", NOBODY), "--store or ASYNCTRACE_STORE is missing"),
        (("view",), "--store or ASYNCTRACE_STORE is missing"),
        (("view", "--store", "/nowhere/at/all"), "/nowhere/at/all"),
        (("view", "--store", f"mysql://me:{SECRET}@host/db"), "'mysql://me:***@host/db' is no store"),
        (("ingest", "--stream", f"mysql://me:{SECRET}@host"), "redis://"),
        (("ingest", "--stream", NOBODY), "127.0.0.1:1"),
        (("ingest", "--stream", NOBODY, "--port", "99999"), "--port: give a number from 0 to 65535, not '99999'"),
        (("ingest", "--stream", NOBODY, "--stream-shards", "0"), "--stream-shards: give a number from 1 to"),
        (("ingest", "--stream", NOBODY, "--stream-ca", "/nowhere.pem"), "--stream-ca: give a file that can be read"),
        (("ingest", "--stream", NOBODY, "--spill", "/proc/spill"), "/proc/spill"),
        (("ingest", "--stream", NOBODY, "--spill-size", "many"), "--spill-size: write 500MB"),
        (("ingest", "--stream", NOBODY, "--host", "0.0.0.0"), "give a token"),
        (("worker", "--stream", NOBODY, "--store", "{empty}", "--at-once", "x"), "--at-once: give a number"),
        (("worker", "--stream", NOBODY, "--store", "{empty}"), "127.0.0.1:1"),
        (("worker", "--stream", NOBODY, "--store", "clickhouse://127.0.0.1:1/x"), "127.0.0.1:1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_work(line_of: LineOf, arguments: tuple[str, ...], wanted: str, tmp_path: Path) -> None:
    assert wanted in line_of(*(each.replace("{empty}", str(tmp_path / "store")) for each in arguments))


def test_the_variable_is_named_when_the_value_came_from_it(line_of: LineOf) -> None:
    line = line_of("ingest", "--stream", NOBODY, ASYNCTRACE_PORT="tcp://10.0.0.1:4318")
    assert "ASYNCTRACE_PORT: give a number" in line


def test_a_flag_wins_over_its_variable(line_of: LineOf) -> None:
    line = line_of("ingest", "--port", "x", ASYNCTRACE_PORT="0", ASYNCTRACE_STREAM=NOBODY)
    assert "--port: give a number" in line


def test_a_wrong_password_of_the_stream(line_of: LineOf, servers: Servers) -> None:
    node = servers.standalone("--requirepass", "right")
    line = line_of("ingest", "--stream", f"redis://:{SECRET}@{node.address}")
    assert node.address in line


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://user:word@host:6379", "redis://user:***@host:6379"),
        ("redis://:word@host", "redis://:***@host"),
        ("redis://user@host", "redis://user:***@host"),
        ("clickhouse://a:b@c:8123/d", "clickhouse://a:***@c:8123/d"),
        ("http://a:b@c/d?password=e&x=1", "http://a:***@c/d?password=***&x=1"),
        ("redis://host", "redis://host"),
        ("redis://us:wo@rd@host", "redis://us:***@host"),
        ("redis://us:12/wo#rd@host", "redis://us:***@host"),
        ("/var/lib/asynctrace", "/var/lib/asynctrace"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert masked(url) == shown
