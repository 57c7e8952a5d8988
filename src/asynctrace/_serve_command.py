"""`asynctrace serve`: the collector as a program, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import gc
import signal
import sys
import threading
import webbrowser
from collections.abc import Callable
from typing import Final

from ._collector_commands import add_directory, directory_of, token_of
from ._errors import ConfigurationError
from ._quantities import NEVER, read_age, read_size
from ._terminal import complain, write

__all__ = ["add_serve"]

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 4318
DEFAULT_SIZE: Final = "8GB"

COLLECTED_AFTER: Final = (50_000, 20, 100)
"""Of `gc.set_threshold()`. A commit makes tens of thousands of tuples that stay and no cycles: looking at them every 700
costs a seventh of all time."""


def add_serve(parser: argparse.ArgumentParser) -> None:
    """Add its options."""
    parser.add_argument("--host", default=DEFAULT_HOST, help="address to bind (%(default)s)")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, help="port to bind; 0 picks a free one (%(default)s)")
    parser.add_argument(
        "--otlp-port",
        type=int,
        metavar="PORT",
        help=f"receive OTLP there too, if it is free (default: {DEFAULT_PORT} beside another --port, none beside 0)",
    )
    add_directory(parser)
    parser.add_argument(
        "--max-size",
        type=_size,
        default=DEFAULT_SIZE,
        metavar="SIZE",
        help=f"keep at most so much on disk, as 500MB or 20GB, or {NEVER}; the oldest goes first (%(default)s)",
    )
    parser.add_argument(
        "--max-age",
        type=_age,
        default=NEVER,
        metavar="AGE",
        help=f"keep traces for so long, as 12h or 30d, or {NEVER} (%(default)s)",
    )
    parser.add_argument("--no-open", action="store_true", help="open no browser; without a terminal none is opened")
    parser.add_argument("--token", help="secret that senders and readers must present; default: $ASYNCTRACE_TOKEN")
    parser.set_defaults(run=_serve)


def _size(text: str) -> int | None:
    return _argument(read_size, text)


def _age(text: str) -> float | None:
    return _argument(read_age, text)


def _argument(read: Callable[[str], int | None], text: str) -> int | None:
    try:
        return read(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _serve(options: argparse.Namespace) -> int:
    gc.set_threshold(*COLLECTED_AFTER)
    asyncio.run(_run_collector(options, token_of(options)))
    return 0


async def _run_collector(options: argparse.Namespace, token: str | None) -> None:
    import anyio

    from .collector import Bounds, Collector, SQLiteStore, StoreError
    from .collector.live import SNAPSHOT_FILE

    directory = directory_of(options)
    try:
        store = SQLiteStore(directory, bounds=Bounds(size=options.max_size, age=options.max_age))
    except StoreError as error:
        raise ConfigurationError(str(error)) from error
    try:
        otlp_port = _otlp_port(options)
        ports = {"port": options.port, "otlp_port": otlp_port}
        snapshot = directory / SNAPSHOT_FILE
        async with Collector(store, host=options.host, token=token, snapshot=snapshot, **ports) as collector:
            # Left at the first signal, so that a second one ends the process at once.
            with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
                write(collector.url)
                sys.stdout.flush()
                _tell_of_otlp(otlp_port, collector.otlp_url)
                complain(f"traces are kept in {directory}; Ctrl-C ends")
                if not options.no_open and sys.stdout.isatty():
                    _open_browser(collector.url, token)
                await anext(signals)
    finally:
        store.close()


def _otlp_port(options: argparse.Namespace) -> int | None:
    """Where senders with default settings are met, when the page is somewhere else."""
    wanted = options.otlp_port
    if wanted is None and options.port not in (0, DEFAULT_PORT):
        wanted = DEFAULT_PORT
    return None if wanted == options.port else wanted


def _tell_of_otlp(wanted: int | None, url: str | None) -> None:
    if url is not None:
        complain(f"OTLP is received at {url} too")
    elif wanted is not None:
        complain(f"port {wanted} is another program's: send OTLP to the address above")


def _open_browser(url: str, token: str | None) -> None:
    """Beside the event loop: some browsers hold up who starts them."""
    address = url if token is None else f"{url}/?token={token}"
    threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
