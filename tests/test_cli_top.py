"""`asynctrace top`: one look where nobody watches, and again and again on a terminal, which it leaves as it was."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asynctrace import Tracer
from asynctrace._contracts import AttributeValue, StatusCode
from asynctrace._tree import _columns
from asynctrace.cli import main
from asynctrace.collector import RunSummary, Top, render_top
from asynctrace.collector.store import Group, SpanStatistics, TimePoint
from asynctrace.exporters import OTLPExporter

from .collector.processes import ENVIRONMENT, Served, serving
from .collector.traffic import PROTOBUF, START, group, protobuf, span

PATIENCE = 30.0
ENTER, LEAVE = "\x1b[?1049h", "\x1b[?1049l"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path / "store") as running:
        yield running


def _post(url: str, number: int, *, error: bool = False) -> None:
    """A trace of just now: a root and a call of a model."""
    now = time.time_ns() - START
    called: dict[str, AttributeValue] = {
        "openinference.span.kind": "LLM",
        "llm.model_name": "gpt-x",
        "llm.token_count.prompt": 1000,
        "llm.token_count.completion": 200,
        "llm.cost.total": 0.25,
    }
    status = StatusCode.ERROR if error else StatusCode.OK
    root = span(number, 1, name="checkout", start=now, duration=2_000_000_000)
    call = span(number, 2, parent=1, name="chat", start=now, duration=10**9, status=status, attributes=called)
    request = urllib.request.Request(f"{url}/v1/traces", protobuf([group(root, call)]), {"Content-Type": PROTOBUF})
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        assert answer.status == 200


@pytest.mark.parametrize("where", ["url", "directory"])
def test_one_look_counts_what_was_busy(where: str, served: Served, capfd: pytest.CaptureFixture[str]) -> None:
    _post(served.url, 1)
    _post(served.url, 2, error=True)
    source = ["--url", served.url] if where == "url" else ["--data", str(served.directory)]
    assert main(["top", *source, "--minutes", "60"]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert "25.0 % errors" in lines[0]
    assert "0 open" in lines[0]
    rows = {line.split()[0]: line for line in lines if line.startswith(("chat", "checkout"))}
    assert rows["chat"].split()[1:3] == ["2", "1"]
    assert rows["chat"].split()[-2:] == ["2,400", "$0.50"]
    assert rows["checkout"].split()[1:3] == ["2", "0"]
    assert main(["top", *source, "--by", "model", "--once"]) == 0
    assert any(line.startswith("gpt-x") for line in capfd.readouterr().out.splitlines())


@pytest.mark.anyio
async def test_what_is_open_is_at_the_top(served: Served, capfd: pytest.CaptureFixture[str]) -> None:
    import anyio

    async with Tracer("shop", [OTLPExporter(served.url)], journal=False) as tracer:
        async with tracer.trace("earlier"):
            pass
        await tracer.flush()  # the answer says that notices of open spans are welcome
        async with tracer.trace("for hours"):
            with anyio.fail_after(PATIENCE):
                while True:
                    assert await anyio.to_thread.run_sync(main, ["top", "--url", served.url]) == 0
                    said = capfd.readouterr().out.splitlines()
                    if any("◌ for hours" in line for line in said):
                        break
                    await anyio.sleep(0.05)
    assert "1 open" in said[0]


def test_json_is_what_it_shows(served: Served, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    _post(served.url, 1)
    assert main(["top", "--url", served.url, "--json"]) == 0
    look = msgspec.json.decode(capfdbinary.readouterr().out, type=Top)
    assert {row.key for row in look.statistics.rows} == {"chat", "checkout"}
    assert look.open == ()
    assert look.seconds == 15 * 60


def test_no_collector_is_one_line_on_the_screen_that_stays(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["top", "--url", "http://127.0.0.1:9"]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert "no collector answers" in err


@pytest.mark.parametrize(
    "wrong", [["--minutes", "0"], ["--minutes", "x"], ["--every", "0"], ["--every", "nan"], ["--by", "n"]]
)
def test_wrong_options_are_said_at_once(wrong: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["top", *wrong])
    assert ended.value.code == 2
    assert "needed" in capfd.readouterr().err or wrong[0] == "--by"


# ── on a terminal ───────────────────────────────────────────────────────────────────────────────────────────


@dataclasses.dataclass
class Terminal:
    """A terminal of 80 columns and 12 lines with a program on it, and everything that the program wrote."""

    process: subprocess.Popen[bytes]
    handle: int
    said: str = ""

    def shows(self, is_so: Callable[[str], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not is_so(self.said):
            assert time.monotonic() < deadline, self.said
            self._read()

    def end(self) -> int:
        self.process.send_signal(signal.SIGINT)
        self.shows(lambda said: self.process.poll() is not None)
        with contextlib.suppress(OSError):  # the other side is closed
            while self._read():
                pass
        return self.process.returncode

    def _read(self) -> bool:
        ready, _, _ = select.select([self.handle], [], [], 0.05)
        if not ready:
            return False
        try:
            self.said += os.read(self.handle, 65536).decode(errors="replace")
        except OSError:
            if self.process.wait(PATIENCE) is None:
                raise
            return False
        return True


@contextlib.contextmanager
def _on_a_terminal(*arguments: str) -> Iterator[Terminal]:
    handle, far = pty.openpty()
    fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("HHHH", 12, 80, 0, 0))
    command = [sys.executable, "-m", "asynctrace.cli", "top", *arguments]
    kept = {name: value for name, value in ENVIRONMENT.items() if name not in ("COLUMNS", "LINES")}
    environment = {**kept, "TERM": "xterm", "PYTHONUTF8": "1"}
    with subprocess.Popen(command, stdin=far, stdout=far, stderr=subprocess.PIPE, env=environment) as process:
        os.close(far)
        try:
            yield Terminal(process, handle)
        finally:
            process.kill()
            os.close(handle)


def test_a_terminal_shows_what_comes_and_is_left_as_it_was(served: Served) -> None:
    _post(served.url, 1)
    with _on_a_terminal("--url", served.url, "--every", "0.1") as terminal:
        terminal.shows(lambda said: "checkout" in said)
        assert terminal.said.startswith(ENTER)
        _post(served.url, 2, error=True)
        terminal.shows(lambda said: "25.0 % errors" in said)
        assert terminal.end() == 130
        assert terminal.said.endswith(LEAVE)
        assert terminal.said.count(ENTER) == 1


def test_a_collector_that_ends_is_said_on_the_screen_that_stays(served: Served) -> None:
    _post(served.url, 1)
    with _on_a_terminal("--url", served.url, "--every", "0.1") as terminal:
        terminal.shows(lambda said: "checkout" in said)
        served.process.kill()
        served.process.wait(PATIENCE)
        assert terminal.process.stderr is not None
        assert b"no collector answers" in terminal.process.stderr.read()
        terminal.shows(lambda said: LEAVE in said)
        assert terminal.process.wait(PATIENCE) == 1


# ── what a look looks like ──────────────────────────────────────────────────────────────────────────────────

texts = st.text(max_size=120)
summaries = st.builds(
    RunSummary,
    trace_id=st.just("a" * 32),
    short_id=st.just("aaaaaaaa"),
    name=texts,
    service=texts,
    start_ns=st.integers(0, 2**63 - 1),
    end_ns=st.just(0),
    duration=st.none(),
    spans=st.integers(0, 10**9),
    errors=st.just(0),
    open=st.just(1),
    ending=st.just("open"),
)
amounts = st.integers(0, 10**11)
seconds = st.floats(0, 10**6)
groups = st.builds(
    Group,
    key=texts,
    count=amounts,
    errors=amounts,
    p50=seconds,
    p95=seconds,
    p99=seconds,
    input_tokens=amounts,
    output_tokens=amounts,
    cost=st.floats(0, 99_999),
)
points = st.builds(TimePoint, t=amounts, count=amounts, errors=amounts, p50=seconds, p95=seconds, p99=seconds)
looks = st.builds(
    Top,
    now_ns=st.integers(0, 2**63 - 1),
    seconds=st.integers(1, 10080).map(lambda minutes: 60 * minutes),
    by=st.sampled_from(("name", "service", "model", "type")),
    open=st.lists(summaries, max_size=30).map(tuple),
    statistics=st.builds(
        SpanStatistics, rows=st.lists(groups, max_size=30).map(tuple), series=st.lists(points, max_size=5).map(tuple)
    ),
)


def _fits(text: str, width: int, height: int) -> bool:
    lines = text.split("\n")
    return len(lines) <= height and all(_columns(line) <= width and line.isprintable() for line in lines)


@given(looks, st.integers(66, 200), st.integers(9, 60))
def test_a_look_fits_the_screen_whatever_spans_are_called(look: Top, width: int, height: int) -> None:
    assert _fits(render_top(look, width=width, height=height), width, height)


def test_a_look_that_is_too_large_is_noticed() -> None:
    assert not _fits("x" * 67, 66, 9)
    assert not _fits("\n" * 9, 66, 9)
    assert not _fits("\x1b[2J", 66, 9)


def test_neither_half_takes_the_whole_screen() -> None:
    opened = tuple(
        RunSummary(
            trace_id="a" * 32, short_id="aaaaaaaa", name="run", service="s", start_ns=0, end_ns=0, duration=None,
            spans=1, errors=0, open=1, ending="open",
        )
        for _ in range(30)
    )  # fmt: skip
    row = Group(key="chat", count=1, errors=0, p50=0.1, p95=0.1, p99=0.1, input_tokens=0, output_tokens=0, cost=0.0)
    look = Top(now_ns=10**9, seconds=60, by="name", open=opened, statistics=SpanStatistics(rows=(row,) * 30, series=()))
    lines = render_top(look, height=20).split("\n")
    assert sum("◌ run" in line for line in lines) == 7
    assert sum(line.startswith("chat") for line in lines) == 8
    assert len(lines) == 20
