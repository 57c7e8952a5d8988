"""What a collector holds, asked on the command line: of its directory and of the running program, with one answer."""

from __future__ import annotations

import gzip
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from asynctrace.cli import main
from asynctrace.collector import render_diff
from asynctrace.wire import parse_json_request

from .collector.processes import ENVIRONMENT, Served, serving
from .collector.traffic import PROTOBUF, checkout, group, protobuf, span

A, B = f"{0xA << 124:032x}", f"{0xB << 124:032x}"
CONVERSATION = {
    "gen_ai.input.messages": '[{"role":"user","parts":[{"type":"text","content":"Which tea?"}]}]',
    "gen_ai.output.messages": '[{"role":"assistant","parts":[{"type":"text","content":"Sencha."}]}]',
}
SECRET = "sk-ant-api03-" + "Zx9" * 20


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tmp_path_factory.mktemp("store")) as running:
        said = {"output.value": "no tea", "api_key": SECRET}
        other = span(0xB << 124, 1, name="checkout", start=10**9, duration=2_000_000_000)
        search = span(0xB << 124, 2, parent=1, name="search", start=2 * 10**9, duration=3_000_000, attributes=said)
        chat = span(0xC << 124, 1, name="chat", attributes={"gen_ai.operation.name": "chat", **CONVERSATION})
        for body in (checkout(0xA << 124), group(other, search), group(chat)):
            post(running.url, protobuf([body]))
        yield running


def post(url: str, body: bytes) -> None:
    request = urllib.request.Request(f"{url}/v1/traces", body, {"Content-Type": PROTOBUF})
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status == 200


class Ran(NamedTuple):
    status: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture(params=["directory", "url"])
def run(request: pytest.FixtureRequest, served: Served, capfdbinary: pytest.CaptureFixture[bytes]) -> Run:
    """A command on the directory, and on the running collector."""
    where = ["--data", str(served.directory)] if request.param == "directory" else ["--url", served.url]

    def call(*arguments: str) -> Ran:
        status = main([*arguments, *where])
        out, err = capfdbinary.readouterr()
        return Ran(status, out.decode(), err.decode())

    return call


def test_ls_asks_in_the_query_language(run: Run) -> None:
    ran = run("ls", "status:error", "dur>1s")
    assert ran.status == 0
    assert ran.out == ""
    assert "no traces" in ran.err
    ran = run("ls", "name:search", "--json")
    assert [trace["trace_id"] for trace in msgspec.json.decode(ran.out)["traces"]] == [B]
    ran = run("ls", "--where", "-name:search status:error")
    assert [line.split()[0] for line in ran.out.splitlines()[1:]] == ["a0000000"]


def test_a_malformed_query_is_underlined(run: Run) -> None:
    ran = run("ls", "tea", "is:hot")
    assert (ran.status, ran.out) == (2, "")
    assert ran.err.splitlines()[1:] == ["  tea is:hot", "         ^^^"]


def test_show_prints_a_tree_and_only_what_fits_with_what_is_above(run: Run) -> None:
    ran = run("show", "a0", "--no-details")
    assert [line.split()[1] for line in ran.out.splitlines()] == ["checkout", "●", "✕"]
    assert max(map(len, ran.out.splitlines())) <= 80
    ran = run("show", "a0", "--where", "status:error")
    assert "pay" in ran.out
    assert "checkout" in ran.out
    assert "retrieve" not in ran.out
    ran = run("show", "a0", "--where", "nothing")
    assert "no span of" in ran.err


def test_show_prints_what_was_said_in_any_convention(run: Run) -> None:
    lines = [line.split() for line in run("show", "c0").out.splitlines()]
    assert lines[0][:3] == ["●", "chat", "[llm]"]
    assert lines[1:] == [["input", "Which", "tea?"], ["output", "Sencha."]]


def test_diff_says_where_two_traces_part(run: Run) -> None:
    ran = run("diff", "a0", "b0")
    lines = ran.out.splitlines()
    assert lines[0] == "first difference: checkout › retrieve: only in a"  # noqa: RUF001
    assert [line[0] for line in lines[1:-1]] == [" ", "-", "-", "+"]
    assert lines[1].split() == ["checkout", "1.20", "s", "2.00", "s", "+800", "ms"]
    assert lines[-1].startswith("1 same, 0 changed, 2 only in a, 1 only in b · +")
    assert max(map(len, lines)) <= 80
    assert run("diff", "a0", "a0").out.startswith("no difference\n")
    assert msgspec.json.decode(run("diff", "a0", "b0", "--json").out)["counts"]["only_a"] == 2


@pytest.mark.parametrize(("name", "begins"), [("t.otlp.json", "{"), ("t.md", "# checkout"), ("t.html", "<!")])
def test_export_writes_the_file_that_its_name_says(run: Run, tmp_path: Path, name: str, begins: str) -> None:
    ran = run("export", "b0", "-o", str(tmp_path / name), "--redact")
    text = (tmp_path / name).read_text()
    assert (ran.status, ran.out) == (0, "")
    assert text.lower().startswith(begins)
    assert SECRET not in text


def test_export_prints_what_show_json_prints(run: Run) -> None:
    exported = run("export", "a0").out
    assert parse_json_request(exported.encode()) == [checkout(0xA << 124)]
    assert run("show", "a0", "--json").out.strip() == exported.strip()


@pytest.mark.parametrize(
    ("command", "status", "said"),
    [
        (("show", "d"), 1, "no trace begins with d"),
        (("show", "xyz"), 2, "hex"),
        (("show", "a0", "--json", "--where", "x"), 2, "a whole trace"),
        (("export", "a0", "-o", "/dev/null/x"), 1, "cannot be written"),
        (("diff", "a0", "d"), 1, "no trace begins with d"),
    ],
)
def test_what_cannot_be_done_is_said(run: Run, command: tuple[str, ...], status: int, said: str) -> None:
    ran = run(*command)
    assert (ran.status, ran.out) == (status, "")
    assert said in ran.err


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "ftp://x", "http://[", "nonsense"])
def test_a_collector_that_is_not_there_is_one_line(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ls", "--url", url]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert url in line


def test_the_token_is_sent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(tmp_path, "--token", "secret") as running:
        assert main(["ls", "--url", running.url]) == 1
        assert "token" in capsys.readouterr().err
        assert main(["ls", "--url", running.url, "--token", "secret"]) == 0


@pytest.mark.parametrize("where", ["directory", "url"])
def test_tail_prints_a_trace_when_it_comes(tmp_path: Path, where: str) -> None:
    with serving(tmp_path) as running:
        source = ["--url", running.url] if where == "url" else ["--data", str(tmp_path)]
        command = [sys.executable, "-u", "-m", "asynctrace.cli", "tail", "name:checkout", "--json", *source]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=ENVIRONMENT) as tail:
            try:
                assert tail.stdout is not None
                line = _first_line(tail, running)
                assert msgspec.json.decode(line)["name"] == "checkout"
            finally:
                tail.kill()


def _first_line(tail: subprocess.Popen[bytes], running: Served) -> bytes:
    """It is told when it listens: traces come until one is seen."""
    import selectors

    assert tail.stdout is not None
    selector = selectors.DefaultSelector()
    selector.register(tail.stdout, selectors.EVENT_READ)
    deadline = time.monotonic() + 30
    for number in range(1, 10_000):
        assert time.monotonic() < deadline
        post(running.url, protobuf([checkout(number)]))
        if selector.select(0.2):
            break
    return tail.stdout.readline()


@pytest.mark.parametrize("compress", [bytes, gzip.compress])
def test_open_shows_a_file_in_a_page_of_its_own(tmp_path: Path, compress: type[bytes]) -> None:
    path = tmp_path / "trace.bin"
    path.write_bytes(compress(protobuf([checkout(0xA << 124)])))
    command = [sys.executable, "-m", "asynctrace.cli", "open", str(path), "--no-open"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT | {"TMPDIR": str(tmp_path)}
    ) as process:
        try:
            assert process.stdout is not None
            url, _, page = process.stdout.readline().strip().rpartition("/trace/")
            assert page == A
            with urllib.request.urlopen(f"{url}/api/v1/traces/{A}", timeout=30) as answer:
                assert msgspec.json.decode(answer.read())["spans"] == 3
            process.terminate()
            assert process.wait(30) == 0
        finally:
            process.kill()
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"", b"{}", b"not a trace", b"\x1f\x8b broken"])
def test_a_file_that_holds_no_trace_is_one_line(
    tmp_path: Path, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    assert main(["open", str(path), "--no-open"]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert str(path) in line
    assert main(["open", str(tmp_path / "none"), "--no-open"]) == 1


def test_no_line_of_a_diff_is_wider_than_asked() -> None:
    row = {
        "depth": 30,
        "name": "漢\x1b[31m" * 50,
        "state": "changed",
        "what": "output differs",
        "duration": [1e9, None],
    }
    diff = {
        "first": {"path": ["漢" * 99], "what": "x"},
        "rows": [row],
        "counts": {"same": 10**6, "changed": 1, "only_a": 0, "only_b": 0},
        "totals": {"duration": [1.0, 2.0], "tokens": [0, 10**9], "cost": [0.0, 1e6]},
    }
    for width in (60, 80, 200):
        text = render_diff(diff, width=width)
        assert "\x1b" not in text
        assert all(sum(1 + (ord(c) > 0x3000) for c in line) <= width for line in text.splitlines())
        assert text.endswith(" · +$1e+06")
