"""`asynctrace ingest`, `worker` and `view`: the collector as programs of their own, until SIGTERM or Ctrl-C."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from . import _fleet_settings as known
from ._errors import ConfigurationError, StreamAway, StreamError
from ._fleet_settings import Setting, Settings, add_settings
from ._terminal import complain, write

if TYPE_CHECKING:
    from .stream import RedisStream

__all__ = ["add_fleet_commands"]

COLLECTED_AFTER: Final = (500_000, 20, 100)
"""Of `gc.set_threshold()`. A batch is some hundred thousand tuples and no cycles: to look at them every 50,000 costs a
tenth."""
UNBOUNDED: Final = 1 << 62
MOST_SHARDS: Final = 1024
MOST_AT_ONCE: Final = 64


def add_fleet_commands(commands: Any) -> None:
    """Add them to the subcommands of a parser."""
    for name, about, run in (
        ("ingest", "receive OTLP over HTTP and put it into a stream", _ingest),
        ("worker", "take spans from a stream and store them", _worker),
        ("view", "show a store that workers write", _view),
    ):
        parser = commands.add_parser(name, help=about)
        add_settings(parser, known.SETTINGS[name])
        parser.set_defaults(run=_as_program(run))


def _as_program(run: Callable[[Settings], Coroutine[Any, Any, None]]) -> Callable[[argparse.Namespace], int]:
    def program(options: argparse.Namespace) -> int:
        gc.set_threshold(*COLLECTED_AFTER)
        asyncio.run(run(Settings(options)))
        return 0

    return program


# ── the programs ────────────────────────────────────────────────────────────────────────────────────────────


async def _ingest(settings: Settings) -> None:
    from .collector.fleet import Ingest, masked
    from .stream import LocalSpill

    stream_url = settings.needed(known.STREAM)
    address = _address(settings)
    place, spilled = settings.text(known.SPILL), settings.size(known.SPILL_SIZE) or UNBOUNDED
    room = settings.size(known.STREAM_SIZE) or UNBOUNDED
    spill = LocalSpill(place, max_bytes=spilled) if place else None
    async with contextlib.AsyncExitStack() as closers:
        if spill is not None:
            closers.push_async_callback(spill.aclose)
        stream = await closers.enter_async_context(_stream(settings, may_be_away=spill is not None, max_bytes=room))
        ingest = await closers.enter_async_context(Ingest(stream, spill=spill, **address))
        kept = f", and to {place} while that is away" if place else ""
        await _until_ended(ingest.url, f"OTLP goes to {masked(stream_url)}{kept}")


async def _worker(settings: Settings) -> None:
    from .collector.fleet import Worker, advice_of, masked, open_store
    from .collector.store import Bounds

    stream_url, place = settings.needed(known.STREAM), settings.needed(known.STORE)
    address = _address(settings, known.WORKER_PORT)
    name, at_once = settings.text(known.NAME), settings.number(known.AT_ONCE, 1, MOST_AT_ONCE)
    lease = float(settings.number(known.LEASE, 3, 3600))
    bounds = Bounds(size=settings.size(known.MAX_SIZE), age=settings.age(known.MAX_AGE))
    ca = settings.file(known.STORE_CA)
    async with contextlib.AsyncExitStack() as closers:
        store = await asyncio.to_thread(open_store, place, bounds=bounds, ca=ca)
        closers.push_async_callback(asyncio.to_thread, store.close)
        for line in await asyncio.to_thread(advice_of, store):
            complain(line)
        stream = await closers.enter_async_context(_stream(settings, lease=lease))
        worker = Worker(stream, store, name=name, at_once=at_once, lease=lease, **address)
        await closers.enter_async_context(worker)
        await _until_ended(worker.url, f"{masked(stream_url)} goes to {masked(place)}")


async def _view(settings: Settings) -> None:
    from .collector.fleet import Viewer, masked, open_reader

    place = settings.needed(known.STORE)
    address = _address(settings)
    reader, changing = await asyncio.to_thread(open_reader, place, ca=settings.file(known.STORE_CA))
    async with contextlib.AsyncExitStack() as closers:
        if changing is not None:
            closers.push_async_callback(asyncio.to_thread, changing.close)
        viewer = await closers.enter_async_context(Viewer(reader, changing=changing, **address))
        await _until_ended(viewer.url, f"traces are in {masked(place)}")


async def _until_ended(url: str, about: str) -> None:
    """Until the first signal: a second one ends the process at once."""
    import anyio

    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        write(url)
        sys.stdout.flush()
        complain(f"{about}; Ctrl-C ends")
        await anext(signals)


# ── what they need ──────────────────────────────────────────────────────────────────────────────────────────


def _address(settings: Settings, port: Setting = known.PORT) -> dict[str, Any]:
    """Checked before anything is opened or connected to."""
    from .collector._site import check_access

    host, number = settings.text(known.HOST), settings.number(port, 0, 65535)
    token = settings.text(known.TOKEN) or None
    check_access(host, token, number)
    return {"host": host, "port": number, "token": token}


@contextlib.asynccontextmanager
async def _stream(settings: Settings, *, may_be_away: bool = False, **more: Any) -> AsyncIterator[RedisStream]:
    """Checked: one that is set up wrong ends the program with one line. One that is away may come, where that is bearable."""
    from .collector.fleet import masked
    from .stream import RedisStream, parse_address

    url = settings.needed(known.STREAM)
    options = more | {
        "prefix": settings.text(known.PREFIX),
        "shards": settings.number(known.SHARDS, 1, MOST_SHARDS),
        "timeout": float(settings.number(known.STREAM_TIMEOUT, 1, 600)),
    }
    if ca := settings.file(known.STREAM_CA):
        options["ca_file"] = ca
    if password := settings.file(known.STREAM_PASSWORD_FILE):
        options["credentials"] = _credentials(parse_address(url).username, password)
    if settings.text(known.STREAM_WAIT):
        options["wait"] = settings.number(known.STREAM_WAIT, 0, 10)
    try:
        import redis  # noqa: F401
    except ImportError:
        raise ConfigurationError("a stream needs redis-py: pip install 'asynctrace[redis]'") from None
    stream = RedisStream(url, **options)
    try:
        await stream.check()
    except StreamAway as error:
        if not may_be_away:
            await stream.aclose()
            raise ConfigurationError(f"{masked(url)}: {error}") from None
        complain(f"{masked(url)}: {error}")
    except StreamError as error:
        await stream.aclose()
        raise ConfigurationError(str(error)) from None
    try:
        yield stream
    finally:
        await stream.aclose()


def _credentials(user: str, path: Path) -> Callable[[], tuple[str, str]]:
    """User name and password, as they are when a connection is opened."""
    return lambda: (user, path.read_text(encoding="utf-8").strip())
