"""What a collector holds, on the command line.

    ls [QUERY]   the newest traces        show TRACE      one of them as a tree       tail [QUERY]  each as it changes
    diff A B     two side by side         export TRACE    one as a file               open FILE     such a file, in the page

Each reads a running collector (`--url`, `$ASYNCTRACE_URL`) or the directory of one (`--data`), and asks in the same language.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from ._errors import AsynctraceError, ConfigurationError
from ._terminal import Progress, complain, terminal_width, write, write_json, write_tree

if TYPE_CHECKING:
    from ._collector_source import Source
    from ._contracts import Span
    from .collector.api._view import Whole
    from .collector.query import Query

__all__ = ["add_collector_commands", "add_directory", "add_source", "directory_of", "source_for", "token_of"]

LIST_LIMIT: Final = 20
MAX_LIST_LIMIT: Final = 10_000
KINDS: Final = ("otlp.json", "md", "html")


# ── arguments ───────────────────────────────────────────────────────────────────────────────────────────────


def add_collector_commands(commands: Any) -> None:
    """Add them to the subcommands of a parser."""
    _add_ls(commands.add_parser("ls", help="list the newest traces"))
    _add_show(commands.add_parser("show", help="print one trace as a tree"))
    _add_tail(commands.add_parser("tail", help="print traces as they come and change"))
    _add_diff(commands.add_parser("diff", help="compare two traces"))
    _add_export(commands.add_parser("export", help="write one trace as a file"))
    _add_open(commands.add_parser("open", help="look at an exported file in the page"))


def _add_ls(parser: argparse.ArgumentParser) -> None:
    _add_query(parser)
    add_source(parser)
    parser.add_argument("--limit", type=_limit, default=LIST_LIMIT, help="how many traces (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON as GET /api/v1/traces answers it")
    parser.set_defaults(run=_ls)


def _add_show(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("trace", metavar="TRACE", help="a trace id, or the beginning of one")
    add_source(parser)
    parser.add_argument("--where", metavar="QUERY", default="", help="only the spans that fit, and what is above them")
    parser.add_argument("--json", action="store_true", help="print the trace as OTLP/JSON")
    parser.add_argument("--no-details", action="store_true", help="names and durations only")
    parser.set_defaults(run=_show)


def _add_tail(parser: argparse.ArgumentParser) -> None:
    _add_query(parser)
    add_source(parser)
    parser.add_argument("--json", action="store_true", help="print a JSON object a line")
    parser.set_defaults(run=_tail)


def _add_diff(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("a", metavar="A", help="a trace id, or the beginning of one")
    parser.add_argument("b", metavar="B", help="the one to compare it with")
    add_source(parser)
    parser.add_argument("--all", action="store_true", help="also the spans that are the same")
    parser.add_argument("--json", action="store_true", help="print JSON as GET /api/v1/diff answers it")
    parser.set_defaults(run=_diff)


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("trace", metavar="TRACE", help="a trace id, or the beginning of one")
    add_source(parser)
    parser.add_argument("--format", choices=KINDS, help="default: what the name of the file says, else otlp.json")
    parser.add_argument("-o", "--output", metavar="FILE", type=Path, help="default: the standard output")
    parser.add_argument(
        "--redact",
        action=argparse.BooleanOptionalAction,
        help="leave out what looks like a secret; default: in md and html, which people read",
    )
    parser.set_defaults(run=_export)


def _add_open(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", type=Path, help="OTLP as JSON or protobuf, gzipped or not")
    parser.add_argument("--port", type=int, default=0, help="port to bind; 0 picks a free one (%(default)s)")
    parser.add_argument("--no-open", action="store_true", help="print the address, and open no browser")
    parser.set_defaults(run=_open)


def _add_query(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("query", metavar="QUERY", nargs="*", default=[], help="which traces: status:error dur>2s …")
    parser.add_argument("--where", metavar="QUERY", default="", help="the same, as one argument; for -term")


def add_source(parser: argparse.ArgumentParser) -> None:
    """The options that say what is read: `--data`, `--url`, `--token`."""
    add_directory(parser)
    parser.add_argument("--url", help="read a running collector; default: $ASYNCTRACE_URL, else the directory")
    parser.add_argument("--token", help="the collector's secret; default: $ASYNCTRACE_TOKEN")


def add_directory(parser: argparse.ArgumentParser) -> None:
    """The option `--data`."""
    parser.add_argument(
        "--data",
        metavar="DIR",
        type=Path,
        dest="directory",
        help="where traces are kept; default: $XDG_STATE_HOME/asynctrace or ~/.local/state/asynctrace",
    )


def directory_of(options: argparse.Namespace) -> Path:
    """Where traces are kept."""
    if options.directory is not None:
        return Path(options.directory)
    state = os.environ.get("XDG_STATE_HOME", "")
    # the XDG specification: a relative path is invalid and to be ignored
    base = Path(state) if os.path.isabs(state) else Path.home() / ".local" / "state"
    return base / "asynctrace"


def token_of(options: argparse.Namespace) -> str | None:
    """The secret of a collector, if it has one."""
    return options.token if options.token is not None else os.environ.get("ASYNCTRACE_TOKEN") or None


def _limit(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:9]) <= MAX_LIST_LIMIT:
        raise argparse.ArgumentTypeError(f"a number from 1 to {MAX_LIST_LIMIT} is needed, not {text!r}")
    return int(text)


def source_for(options: argparse.Namespace) -> Source:
    """What these options say."""
    from ._collector_source import source_of

    url = options.url
    if url is None and options.directory is None:
        url = os.environ.get("ASYNCTRACE_URL") or None
    return source_of(url, directory_of(options), token_of(options))


def _query(*texts: str) -> Query:
    """The query that the arguments write down together. A malformed one is shown with the place underlined."""
    from .collector.query import QueryError, parse

    text = " ".join(filter(None, texts))
    try:
        return parse(text)
    except QueryError as error:
        shown = "".join(character if character.isprintable() else "?" for character in text)
        marks = " " * error.start + "^" * (error.end - error.start)
        raise ConfigurationError(f"{error.message}\n  {shown}\n  {marks}") from error


def _the_one(source: Source, prefix: str) -> str:
    """The only trace id that begins with `prefix`."""
    try:
        found = source.find(prefix.lower())
    except ValueError as error:
        raise ConfigurationError(str(error)) from error
    if not found:
        raise AsynctraceError(f"no trace begins with {prefix} in {source.where}: `asynctrace ls` lists them")
    if len(found) > 1:
        several = ", ".join(sorted(found)[:3]) + (", …" if len(found) > 3 else "")
        raise AsynctraceError(f"{prefix} is the beginning of several traces: {several}")
    return found[0]


# ── ls, tail ────────────────────────────────────────────────────────────────────────────────────────────────


def _ls(options: argparse.Namespace) -> int:
    from .collector import render_runs

    query, source = _query(*options.query, options.where), source_for(options)
    with Progress("searching"):
        page = source.traces(query, options.limit)
    if options.json:
        import msgspec

        write_json(msgspec.json.encode(page))
    elif page.traces:
        write(render_runs(page.traces, width=terminal_width()))
    else:
        complain(f"no traces in {source.where} " + (f"for {query}" if query.terms else "yet"))
    return 0


def _tail(options: argparse.Namespace) -> int:
    import msgspec

    from .collector import render_runs

    query, source = _query(*options.query, options.where), source_for(options)
    told: dict[str, object] = {}
    is_first = True
    for summary in source.changes(query):
        if options.json:
            write_json(msgspec.json.encode(summary))
        elif told.get(summary.trace_id) != (news := (summary.ending, summary.open, summary.errors, summary.lost)):
            told[summary.trace_id] = news
            lines = render_runs([summary], width=terminal_width()).splitlines()
            write("\n".join(lines if is_first else lines[1:]))
            is_first = False
        sys.stdout.flush()
    return 0


# ── show ────────────────────────────────────────────────────────────────────────────────────────────────────


def _show(options: argparse.Namespace) -> int:
    query, source = _query(options.where), source_for(options)
    if options.json:
        if query.terms:
            raise ConfigurationError("--json prints a whole trace: leave out --where")
        with Progress("reading"):
            body = source.file(_the_one(source, options.trace), "otlp.json", is_redacted=False)
        write_json(body)
        return 0
    with Progress("reading"):
        spans = _spans_of(source.whole(_the_one(source, options.trace)), query)
    if spans:
        write_tree(spans, details=not options.no_details)
    else:
        complain(f"no span of {options.trace} fits {query}")
    return 0


def _spans_of(whole: Whole, query: Query) -> list[Span]:
    """The spans that fit, and all above them."""
    import time

    from .collector.query._match import matches

    now_ns = time.time_ns()
    places = {row.span_id: index for index, row in enumerate(whole.rows)}
    shown: set[int] = set()
    for index in range(len(whole.rows)):
        if matches(query, whole.candidate(index), whole.summary, now_ns):
            here: int | None = index
            while here is not None and here not in shown:
                shown.add(here)
                here = places.get(whole.rows[here].parent_id)
    return [_span(whole, index) for index in sorted(shown)]


def _span(whole: Whole, index: int) -> Span:
    """With its type, input and output under our names, whichever convention it says them in."""
    import msgspec

    from .collector.receiving._dialects import facts_of

    span = whole.candidate(index).span
    facts = facts_of(span)
    said = {"openinference.span.kind": facts.type, "input.value": facts.input, "output.value": facts.output}
    attributes = {key: text for key, text in said.items() if text} | span.attributes
    if index in whole.lost:
        attributes["asynctrace.ending"] = "lost"
    return msgspec.structs.replace(span, attributes=attributes)


# ── diff ────────────────────────────────────────────────────────────────────────────────────────────────────


def _diff(options: argparse.Namespace) -> int:
    from .collector import render_diff

    source = source_for(options)
    with Progress("comparing"):
        found = source.compare(_the_one(source, options.a), _the_one(source, options.b))
    if options.json:
        import msgspec

        write_json(msgspec.json.encode(found))
    else:
        write(render_diff(found, width=terminal_width(), everything=options.all))
    return 0


# ── export, open ────────────────────────────────────────────────────────────────────────────────────────────


def _export(options: argparse.Namespace) -> int:
    source = source_for(options)
    output: Path | None = options.output
    kind = options.format or next((kind for kind in KINDS if output and output.name.endswith(f".{kind}")), KINDS[0])
    is_redacted = kind != "otlp.json" if options.redact is None else options.redact
    with Progress("exporting"):
        body = source.file(_the_one(source, options.trace), kind, is_redacted=is_redacted)
    if output is None:
        sys.stdout.buffer.write(body)
        return 0
    try:
        output.write_bytes(body)
    except OSError as error:
        raise AsynctraceError(f"{output} cannot be written: {error.strerror}") from error
    complain(f"{len(body)} bytes in {output}")
    return 0


def _open(options: argparse.Namespace) -> int:
    import asyncio
    import tempfile

    from .collector.receiving import Refused
    from .collector.receiving._kept import read_kept

    try:
        with Progress("reading"):
            received = read_kept(options.file.read_bytes())
    except OSError as error:
        raise AsynctraceError(f"{options.file} cannot be read: {error.strerror}") from error
    except Refused as error:
        raise AsynctraceError(f"{options.file}: {error.reason}") from error
    if not received.rows:
        raise AsynctraceError(f"{options.file} holds no spans")
    with tempfile.TemporaryDirectory(prefix="asynctrace-open-") as directory:
        asyncio.run(_serve_file(options, received, Path(directory)))
    return 0


async def _serve_file(options: argparse.Namespace, received: Any, directory: Path) -> None:
    import signal
    import webbrowser

    import anyio

    from .collector import Collector, SQLiteStore

    store = SQLiteStore(directory)
    try:
        store.add([received])
        traces = {row.trace_id.hex(): None for row in received.rows}
        path = f"/trace/{next(iter(traces))}" if len(traces) == 1 else ""
        async with Collector(store, port=options.port) as collector:
            with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                write(f"{collector.url}{path}")
                sys.stdout.flush()
                complain(f"{len(received.rows)} spans of {_several(traces)}; Ctrl-C ends")
                if not options.no_open:
                    webbrowser.open(f"{collector.url}{path}")
                await anext(signals)
    finally:
        store.close()


def _several(traces: Sequence[str] | dict[str, None]) -> str:
    return f"{len(traces)} trace" + ("" if len(traces) == 1 else "s")
