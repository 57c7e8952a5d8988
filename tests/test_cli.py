"""The command `asynctrace`, as its users meet it: text on stdout, a line on stderr, an exit status."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
import unicodedata
import urllib.error
import urllib.request
from pathlib import Path

import msgspec
import pytest

from asynctrace import __version__
from asynctrace._contracts import StatusCode
from asynctrace.cli import main
from asynctrace.collector import SQLiteStore, render_runs
from asynctrace.wire import parse_json_request

from .collector.processes import ENVIRONMENT, serving
from .collector.traffic import PROTOBUF, checkout, group, protobuf, received, span
from .patience import patient


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "asynctrace.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        env=ENVIRONMENT | {"TZ": "UTC", "PYTHONIOENCODING": "utf-8"} | environment,
        check=False,
    )


def complaint(result: subprocess.CompletedProcess[str]) -> str:
    """The one line on stderr."""
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("asynctrace: ")
    return line


def post(url: str, body: bytes, **headers: str) -> int:
    request = urllib.request.Request(f"{url}/v1/traces", body, {"Content-Type": PROTOBUF, **headers})
    with urllib.request.urlopen(request, timeout=10) as answer:
        status: int = answer.status
        return status


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A store with a checkout, an open run of another service, and one with a hostile name."""
    open_span = span(0xABCD << 112, 1, name="poll inbox", start=60_000_000_000, duration=0)
    hostile = span(
        0xABCE << 112, 1, name="\x1b[31mred\nroot " + "漢" * 30, start=120_000_000_000, status=StatusCode.ERROR
    )
    with contextlib.closing(SQLiteStore(tmp_path / "state")) as store:
        store.add(
            [received(checkout(0x11 << 120), group(open_span, service="a-service-with-a-long-name"), group(hostile))]
        )
    return tmp_path / "state"


# ── ls ──────────────────────────────────────────────────────────────────────────────────────────────────────


LIST = """\
TRACE     START           NAME                   SPANS ERR DURATION SERVICE
abce0000  11-14 22:15:20  ✕ \\x1b[31mred\\nroot …      1   1  1.00 ms shop
abcd0000  11-14 22:14:20  ◌ poll inbox               1   0     open a-service-w…
11000000  11-14 22:13:20  ● checkout                 3   1   1.20 s shop
"""

ASCII_LIST = LIST.translate(str.maketrans("✕◌●…", "xo*~"))


def test_ls_prints_a_table_of_80_columns(directory: Path) -> None:
    result = run("ls", "--data", str(directory))
    assert (result.stdout, result.stderr, result.returncode) == (LIST, "", 0)
    assert max(map(len, LIST.splitlines())) <= 80


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_ls_and_show_work_where_stdout_is_not_utf_8(directory: Path, encoding: str) -> None:
    result = run("ls", "--data", str(directory), PYTHONIOENCODING=encoding)
    lines = result.stdout.splitlines()
    assert (result.stderr, result.returncode) == ("", 0)
    assert lines[1:] == ASCII_LIST.splitlines()[1:]
    result = run("show", "11", "--data", str(directory), PYTHONIOENCODING=encoding)
    assert "\n|- * retrieve" in result.stdout
    assert result.returncode == 0


def test_ls_stops_at_its_limit(directory: Path) -> None:
    assert run("ls", "--data", str(directory), "--limit", "2").stdout == "\n".join(LIST.splitlines()[:3]) + "\n"
    for wrong in ("0", "-1", "x", "99999999999"):
        result = run("ls", "--data", str(directory), "--limit", wrong)
        assert result.returncode == 2
        assert "a number from 1 to" in result.stderr


def test_ls_prints_json_as_the_api_does(directory: Path) -> None:
    result = run("ls", "--data", str(directory), "--json", PYTHONIOENCODING="ascii")
    page = msgspec.json.decode(result.stdout)
    assert [trace["short_id"] for trace in page["traces"]] == ["abce0000", "abcd0000", "11000000"]
    assert page["traces"][1]["duration"] is None
    assert page["cursor"] is None


def test_ls_of_an_empty_store_says_so(tmp_path: Path) -> None:
    SQLiteStore(tmp_path).close()
    result = run("ls", "--data", str(tmp_path))
    assert "no traces" in complaint(result)
    assert result.returncode == 0


@pytest.mark.parametrize(("digits", "widths"), [(8, (54, 66, 80, 200)), (16, (62, 74, 80, 200)), (31, (78, 80))])
def test_no_line_of_the_table_is_wider_than_asked(tmp_path: Path, digits: int, widths: tuple[int, ...]) -> None:
    with contextlib.closing(SQLiteStore(tmp_path)) as store:
        shift = 4 * (32 - digits)
        spans = (span((n << shift) + 1, name="漢x" * n, duration=n**6) for n in range(1, 200, 7))
        store.add([received(group(*spans, service="é漢" * 50))])
        runs = store.runs(100).traces
    for width in widths:
        lines = render_runs(runs, width=width).splitlines()
        assert len(lines) == 1 + len(runs)
        assert max(columns(line) for line in lines) <= width
        ends = lines[0].index("DURATION") + len("DURATION")
        assert {beginning(line, ends)[-1] for line in lines[1:]} <= set("smh"), "durations do not end below each other"


def beginning(line: str, width: int) -> str:
    """As much of it as fits into so many columns."""
    return next(line[:end] for end in range(len(line), 0, -1) if columns(line[:end]) <= width)


def columns(line: str) -> int:
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in line)


# ── show ────────────────────────────────────────────────────────────────────────────────────────────────────


TREE = """\
● checkout                                                                1.20 s
├─ ● retrieve [retriever]                                                12.0 ms
│      input  {"q":"tea"}
│      +2.00 ms cache miss shard=3
└─ ✕ pay                                                          error   812 ms
"""


@pytest.mark.parametrize("name", ["11", "1100", "11000000", "11" + "0" * 30])
def test_show_prints_the_tree_of_the_trace_that_begins_so(directory: Path, name: str) -> None:
    result = run("show", name, "--data", str(directory))
    assert (result.stdout, result.stderr, result.returncode) == (TREE, "", 0)


def test_show_takes_upper_case(directory: Path) -> None:
    assert "poll inbox" in run("show", "ABCD", "--data", str(directory)).stdout


def test_show_without_details(directory: Path) -> None:
    result = run("show", "11", "--no-details", "--data", str(directory))
    assert result.stdout.splitlines() == [line for line in TREE.splitlines() if "     " not in line[:6]]


def test_show_prints_otlp_json(directory: Path) -> None:
    result = run("show", "11", "--json", "--data", str(directory))
    assert parse_json_request(result.stdout.encode()) == [checkout(0x11 << 120)]


def test_show_of_several_traces_names_them(directory: Path) -> None:
    result = run("show", "abc", "--data", str(directory))
    assert re.search(r"abc is the beginning of several traces: abcd0{28}, abce0{28}$", complaint(result))
    assert result.returncode == 1


@pytest.mark.parametrize(("name", "status"), [("12", 1), ("xyz", 2), ("1" * 33, 2), ("\udcff", 2)])
def test_show_of_no_trace_says_what_to_do(
    directory: Path, name: str, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", name, "--data", str(directory)]) == status
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("command", [("ls",), ("show", "11")])
def test_a_missing_store_says_how_to_make_one(tmp_path: Path, command: tuple[str, ...]) -> None:
    result = run(*command, "--data", str(tmp_path / "none"))
    assert "asynctrace serve" in complaint(result)
    assert result.returncode == 1


def test_the_store_is_found_where_xdg_says(directory: Path, tmp_path: Path) -> None:
    (tmp_path / "xdg").mkdir()
    directory.rename(tmp_path / "xdg" / "asynctrace")
    assert run("ls", XDG_STATE_HOME=str(tmp_path / "xdg")).stdout == LIST
    (tmp_path / "home" / ".local" / "state").mkdir(parents=True)
    (tmp_path / "xdg" / "asynctrace").rename(tmp_path / "home" / ".local" / "state" / "asynctrace")
    for ignored in ("", "relative/path"):
        assert run("ls", HOME=str(tmp_path / "home"), XDG_STATE_HOME=ignored).stdout == LIST


def test_a_reader_of_the_pipe_that_goes_away_is_no_error(directory: Path) -> None:
    with contextlib.closing(SQLiteStore(directory)) as store:
        store.add([received(group(*(span(7, n, name="x" * 60) for n in range(1, 5000))))])
    trace = f"{7:032x}"
    command = [sys.executable, "-m", "asynctrace.cli", "show", trace, "--data", str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=ENVIRONMENT) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(10) == 141


# ── serve ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_serve_prints_its_url_first_and_lists_what_it_gets_while_it_runs(tmp_path: Path) -> None:
    with serving(tmp_path / "state") as served:
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", served.url)
        started = time.monotonic()
        with urllib.request.urlopen(f"{served.url}/readyz", timeout=patient(2)) as ready:
            assert ready.status == 200
        assert time.monotonic() - started < patient(2)
        assert post(served.url, protobuf([checkout(0x11 << 120)])) == 200
        assert run("show", "11", "--data", str(served.directory)).stdout == TREE
        assert "checkout" in run("ls", "--data", str(served.directory)).stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_ends_quietly_on_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    with serving(tmp_path) as served:
        post(served.url, protobuf([checkout(0x11 << 120)]))
        served.process.send_signal(number)
        out, err = served.process.communicate(timeout=15)
        assert (served.process.returncode, out) == (0, "")
        assert err.splitlines() == [f"asynctrace: traces are kept in {tmp_path}; Ctrl-C ends"]
        assert not (tmp_path / "traces.db-wal").exists()  # closed, not only left
    assert run("show", "11", "--data", str(tmp_path)).stdout == TREE


def test_serve_says_in_one_line_that_its_port_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        result = run("serve", "--port", port, "--data", str(tmp_path))
    assert f"127.0.0.1:{port} is in use" in complaint(result)
    assert "--port" in result.stderr
    assert result.returncode == 2


@pytest.mark.parametrize("port", ["-1", "65536", "99999999999"])
def test_serve_refuses_what_is_no_port(tmp_path: Path, port: str) -> None:
    result = run("serve", "--port", port, "--data", str(tmp_path))
    assert "port" in complaint(result)
    assert result.returncode == 2


def test_serve_refuses_other_addresses_without_a_token(tmp_path: Path) -> None:
    result = run("serve", "--host", "0.0.0.0", "--port", "0", "--data", str(tmp_path))
    assert "ASYNCTRACE_TOKEN" in complaint(result)
    assert result.returncode == 2
    result = run("serve", "--port", "0", "--token", "", "--data", str(tmp_path))
    assert "empty" in complaint(result)
    assert result.returncode == 2


def test_serve_asks_for_its_token(tmp_path: Path) -> None:
    with serving(tmp_path, "--host", "0.0.0.0", "--token", "secret") as served:
        url = served.url.replace("0.0.0.0", "127.0.0.1")
        with pytest.raises(urllib.error.HTTPError, match="401") as refusal:
            post(url, protobuf([checkout()]))
        refusal.value.close()
        assert post(url, protobuf([checkout()]), Authorization="Bearer secret") == 200


def test_a_second_serve_on_one_directory_is_refused(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        result = run("serve", "--port", "0", "--data", str(tmp_path))
        assert f"another collector (process {served.process.pid}) uses {tmp_path}" in complaint(result)
        assert result.returncode == 2


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_serve_is_small(tmp_path: Path) -> None:
    with serving(tmp_path) as served:
        for trace in range(1, 20):
            post(served.url, protobuf([group(*(span(trace, n) for n in range(1, 200)))]))
        status = Path(f"/proc/{served.process.pid}/status").read_text()
        (resident,) = re.findall(r"VmRSS:\s+(\d+) kB", status)
        assert int(resident) < 80_000


# ── demo, and the rest ──────────────────────────────────────────────────────────────────────────────────────


def test_the_demo_counts_what_it_sent(tmp_path: Path) -> None:
    result = run("demo", TMPDIR=str(tmp_path))
    assert (result.stderr, result.returncode) == ("", 0)
    accepted = re.search(r"Receipt\(ended=(\d+), accepted=(\d+), rejected=0, .*pending=0\)", result.stdout)
    stored = re.search(r"the collector holds (\d+) spans of 4 traces", result.stdout)
    assert accepted is not None
    assert stored is not None
    assert accepted[1] == accepted[2] == stored[1]
    for part in ("[planner", "● chat stream [llm]", "✕ order status [tool]", "timeout", "cancelled", "cache miss"):
        assert part.strip("[") in result.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_demo_keeps_its_store_when_asked(tmp_path: Path) -> None:
    result = run("demo", "--keep", TMPDIR=str(tmp_path))
    (kept,) = tmp_path.iterdir()
    assert f"asynctrace ls --data {kept}" in result.stdout
    assert len(run("ls", "--data", str(kept)).stdout.splitlines()) == 5


@pytest.mark.parametrize("variable", ["OTEL_SDK_DISABLED=true", "OTEL_TRACES_SAMPLER=always_off"])
def test_the_demo_is_the_same_whatever_the_environment_says(variable: str) -> None:
    name, _, value = variable.partition("=")
    result = run("demo", **{name: value})
    assert (result.stderr, result.returncode) == ("", 0)
    assert "the collector holds" in result.stdout


LOSES_A_SPAN = """
import sys
from asynctrace.cli import main
from asynctrace.collector import SQLiteStore

def add(self, received, add=SQLiteStore.add):
    for each in received:
        each.rows[:] = [row for row in each.rows if row.name != "planner"]
    add(self, received)

SQLiteStore.add = add
sys.exit(main(["demo"]))
"""


def test_a_demo_whose_collector_loses_spans_fails() -> None:
    result = subprocess.run(
        [sys.executable, "-c", LOSES_A_SPAN], capture_output=True, text=True, timeout=30, env=ENVIRONMENT, check=False
    )
    assert result.returncode == 1
    assert re.search(r"asynctrace: \d+ spans were accepted, \d+ are in the store", result.stderr)


def test_the_version_is_printed() -> None:
    assert run("--version").stdout == f"asynctrace {__version__}\n"


def test_without_a_command_the_usage_is_shown() -> None:
    result = run()
    assert result.returncode == 2
    assert "usage: asynctrace" in result.stderr


def test_ctrl_c_is_quiet(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "asynctrace.cli", "demo"]
    environment = ENVIRONMENT | {"TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
        deadline = time.monotonic() + 30
        while not any(path.stat().st_size for path in tmp_path.glob("*/*.db-wal")):
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=15)
        assert err == b""
        assert process.returncode == 130
    assert os.listdir(tmp_path) == []
