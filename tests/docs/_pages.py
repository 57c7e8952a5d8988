"""The code in a page, and running it.

A page is run from top to bottom in an empty folder of its own, as a reader would:

- A `python` block is a whole program, run by a fresh interpreter. If its first line is `# name.py` it is saved under
  that name, for later blocks; `# test_name.py` is run by pytest.
- A `console` block runs its lines that begin with `$ `, but those that install, clone or serve.
- A `text` block straight after either is what it prints; in a `console` block the output stands below its command.
  Durations, ids and runs of spaces compare as equal, and `…` stands for anything.

The OTLP endpoint that pages name, http://127.0.0.1:4318, is exchanged for that of a collector that really runs.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["DEFAULT_ENDPOINT", "Block", "PageError", "anchors_of", "blocks_of", "links_of", "run_page", "same_output"]

DEFAULT_ENDPOINT = "127.0.0.1:4318"
TIMEOUT = 60
"""Seconds for one block."""
NOT_RUN = (
    "pip ",
    ".venv/bin/",
    "python3 -m venv",
    "git ",
    "cd ",
    "asynctrace serve",
    "nox",
    ".ci/run",
    "docker ",
    "kill ",
)
"""Commands of a console block that a test must not repeat."""


class PageError(AssertionError):
    """A page does not do what it says."""


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, its first line in the page, and the output that follows it."""

    language: str
    text: str
    line: int
    output: str | None = None


_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```[ \t]*$", re.MULTILINE | re.DOTALL)


def blocks_of(page: str) -> list[Block]:
    """Every `python` and `console` block with the `text` block straight after it."""
    found = []
    matches = list(_FENCE.finditer(page))
    for number, match in enumerate(matches):
        if match[1] not in ("python", "console"):
            continue
        after = matches[number + 1] if number + 1 < len(matches) else None
        is_output = after is not None and after[1] == "text" and not page[match.end() : after.start()].strip()
        output = after[2] if after is not None and is_output else None
        found.append(Block(match[1], match[2], page.count("\n", 0, match.start()) + 2, output))
    return found


def run_page(page: str, folder: Path, *, endpoint: str = DEFAULT_ENDPOINT, state: Path | None = None) -> int:
    """Run the blocks of `page` in `folder`; the number of those that ran. Raises `PageError`."""
    environment = _environment(folder, endpoint, state)
    ran = 0
    for block in blocks_of(page):
        text = block.text.replace(DEFAULT_ENDPOINT, endpoint)
        steps = _python(text, block, folder) if block.language == "python" else _console(block, text)
        for command, output in steps:
            _run(command, output, block, folder, environment)
            ran += 1
    return ran


def _environment(folder: Path, endpoint: str, state: Path | None) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "PYTEST_", "COV_"))}
    return kept | {
        "HOME": str(folder),
        "XDG_STATE_HOME": str(state or folder),
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://{endpoint}",
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", "")]),
        "PYTHONWARNINGS": "error",
        "COLUMNS": "80",
    }


def _python(text: str, block: Block, folder: Path) -> Iterator[tuple[list[str], str | None]]:
    named = re.match(r"# (\w+\.py)\n", text)
    name = named[1] if named else f"block_{block.line}.py"
    (folder / name).write_text(text, encoding="utf-8")
    if name.startswith("test_"):
        yield [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", name], block.output
    else:
        yield [sys.executable, name], block.output


def _console(block: Block, text: str) -> Iterator[tuple[list[str], str | None]]:
    commands = re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]
    for number, command in enumerate(commands):
        line, _, output = command.partition("\n")
        if line.startswith(NOT_RUN):
            continue
        is_last = number == len(commands) - 1
        yield ["bash", "-c", line], output.strip() or (block.output if is_last else None)


def _run(command: list[str], output: str | None, block: Block, folder: Path, environment: dict[str, str]) -> None:
    where = f"line {block.line}: {command[-1]}"
    try:
        finished = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        raise PageError(f"{where} did not end within {TIMEOUT} s") from None
    printed = finished.stdout + finished.stderr
    if finished.returncode:
        raise PageError(f"{where} ended with status {finished.returncode}:\n{printed}")
    if output is not None and not same_output(output, printed):
        raise PageError(f"{where} prints\n{printed}\nand the page says\n{output}")


_DURATION = re.compile(r"\d+(?:\.\d+)? ?(?:ns|µs|ms|s)\b")
_ID = re.compile(r"\b(?:[0-9a-f]{32}|[0-9a-f]{16}|[0-9a-f]{8}-[0-9a-f-]{27})\b")


def same_output(expected: str, printed: str) -> bool:
    """Equal but for durations, ids, runs of spaces, and what `…` stands for in `expected`."""
    pattern = ".*?".join(re.escape(part) for part in _plain(expected).split("…"))
    return re.fullmatch(pattern, _plain(printed), re.DOTALL) is not None


def _plain(text: str) -> str:
    text = _ID.sub("ID", _DURATION.sub("TIME", text))
    return "\n".join(re.sub(r"[ \t]+", " ", line).rstrip() for line in text.strip().splitlines())


_LINK = re.compile(r"(?<!!)\[[^\]\n]*\]\(([^)\s]+)\)")


def links_of(page: str) -> list[str]:
    """Where a page links to, code left out."""
    return _LINK.findall(re.sub(r"`[^`\n]*`", "", _FENCE.sub("", page)))


def anchors_of(page: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", _FENCE.sub("", page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}
