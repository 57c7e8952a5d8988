"""`asynctrace.middleware.lifespan()`: the tracer lives as long as the application is served, and its last span arrives.

Real applications in a real server, in this process; the programs that servers start are in tests/servers.
"""

from __future__ import annotations

import asyncio
import http.client
import threading
import time
import warnings
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI

import asynctrace
from asynctrace.exporters import OTLPExporter
from asynctrace.middleware import _lifespan, lifespan
from asynctrace.runtime import set_default
from asynctrace.testing import Delay, FaultServer, Hang

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # it would prefer a newer client library, which older versions do not know
    from starlette.testclient import TestClient

Lifespan = Callable[[object], AbstractAsyncContextManager[None]]


@pytest.fixture(autouse=True)
def default_tracer_of_before() -> Iterator[None]:
    before = set_default(None)
    yield
    tracer = set_default(before)
    if tracer is not None:
        tracer.shutdown_sync(0)


def application(lifespan: Any) -> FastAPI:
    app = FastAPI(lifespan=lifespan)

    @app.get("/tea")
    async def tea() -> str:
        async with asynctrace.trace("tea"):
            return "Sencha"

    return app


def configure(server: FaultServer, **options: Any) -> asynctrace.Tracer:
    return asynctrace.configure(service="shop", exporters=[OTLPExporter(server.url)], **options)


class InThread(uvicorn.Server):
    """A server beside the test; leaving the block stops it, as a signal would."""

    def __enter__(self) -> InThread:
        self._thread = threading.Thread(target=self.run)
        self._thread.start()
        deadline = time.monotonic() + 30
        while not self.started:
            assert time.monotonic() < deadline
            assert self._thread.is_alive(), "it did not start"
            time.sleep(0.01)
        return self

    def __exit__(self, *exc: object) -> None:
        self.should_exit = True
        self._thread.join(30)
        assert not self._thread.is_alive(), "it did not stop"

    def get(self, path: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.servers[0].sockets[0].getsockname()[1], timeout=30)
        connection.request("GET", path)
        assert connection.getresponse().status == 200
        connection.close()


def served(app: FastAPI) -> InThread:
    return InThread(uvicorn.Config(app, port=0, log_level="critical", lifespan="on"))


def check_all_have_arrived_when_the_server_stops(lifespan: Callable[[], Lifespan] = lifespan) -> None:
    with FaultServer.in_thread(default=Delay(0.5)) as far_side:
        app = application(lifespan())
        tracer = configure(far_side)
        with served(app) as server:
            for _ in range(5):
                server.get("/tea")
        assert sum(far_side.accepted_ids.values()) == 5
    assert tracer.receipt().complete


def test_all_have_arrived_when_the_server_stops() -> None:
    check_all_have_arrived_when_the_server_stops()


def test_the_lanes_run_on_the_servers_loop_from_its_start() -> None:
    with FaultServer.in_thread() as far_side:
        app = application(lifespan())
        tracer = configure(far_side)
        assert tracer._delivery._home is None
        with served(app):
            home = tracer._delivery._home
            assert home is not None
            assert home.is_alive
            assert not home._owns_loop


def test_a_far_side_that_is_away_neither_fails_a_start_nor_a_stop() -> None:
    with FaultServer.in_thread(default=Hang()) as far_side:
        app = application(lifespan())
        tracer = configure(far_side, shutdown_timeout=0.2)
        with served(app) as server:
            server.get("/tea")
    assert tracer.receipt().spooled == 1


def check_an_application_that_is_run_twice(lifespan: Callable[[], Lifespan] = lifespan) -> None:
    """As a test client does it; the second time its tracer has been shut down."""
    with FaultServer.in_thread() as far_side:
        app = application(lifespan())
        tracer = configure(far_side)
        for _ in range(2):
            with TestClient(app) as client:
                assert client.get("/tea").text == '"Sencha"'
        assert sum(far_side.accepted_ids.values()) == 1
        assert tracer.receipt().dropped_by_reason == {"after_shutdown": 1}
        configure(far_side)
        with TestClient(app) as client:
            client.get("/tea")
        assert sum(far_side.accepted_ids.values()) == 2


def test_an_application_that_is_run_twice_is_traced_once_and_then_by_the_next_tracer() -> None:
    check_an_application_that_is_run_twice()


def test_a_tracer_that_is_given_is_the_one_that_lives() -> None:
    with FaultServer.in_thread() as far_side, FaultServer.in_thread() as other:
        default = configure(other)
        with asynctrace.Tracer(service="own", exporters=[OTLPExporter(far_side.url)]) as tracer:
            with TestClient(application(lifespan(tracer))), tracer.trace("own"):
                pass
            assert sum(far_side.accepted_ids.values()) == 1
            assert tracer.receipt().complete
        with default.trace("goes on"):
            pass
        default.flush_sync()
        assert sum(other.accepted_ids.values()) == 1


def test_a_lifespan_of_your_own_goes_around_it() -> None:
    steps = []

    @asynccontextmanager
    async def own(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        async with lifespan()(app):
            async with asynctrace.trace("opened"):
                steps.append("opened")
            yield {"database": "open"}
            async with asynctrace.trace("closed"):
                steps.append("closed")

    with FaultServer.in_thread() as far_side:
        configure(far_side)
        with TestClient(application(own)) as client:
            assert client.app_state["database"] == "open"
        assert {span.name for span in far_side.spans} == {"opened", "closed"}
    assert steps == ["opened", "closed"]


def test_a_lifespan_that_is_cancelled_delivers_all_the_same() -> None:
    async def run() -> None:
        async def live() -> None:
            async with lifespan()(None):
                async with asynctrace.trace("tea"):
                    pass
                has_ended.set()
                await asyncio.sleep(60)

        has_ended = asyncio.Event()
        task = asyncio.create_task(live())
        await has_ended.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with FaultServer.in_thread(default=Delay(0.2)) as far_side:
        configure(far_side)
        asyncio.run(run())
        assert sum(far_side.accepted_ids.values()) == 1


@pytest.mark.parametrize("wrong", ["shop", FastAPI, FastAPI()], ids=["a name", "a class", "an application"])
def test_what_is_no_tracer_is_refused_with_the_right_call(wrong: Any) -> None:
    with pytest.raises(asynctrace.MisuseError, match=r"FastAPI\(lifespan=lifespan\(\)\)"):
        lifespan(wrong)


# The checks notice -------------------------------------------------------------------------------------------------


class _DoesNotWait(_lifespan.Life):
    async def __aexit__(self, *exc: Any) -> None:
        assert self._tracer is not None
        self._unwaited = asyncio.create_task(self._tracer.shutdown(0.0))


class _OnlyFlushes(_lifespan.Life):
    async def __aexit__(self, *exc: Any) -> None:
        assert self._tracer is not None
        await self._tracer.flush()


class _Refuses(_lifespan.Life):
    async def __aenter__(self) -> None:
        await super().__aenter__()
        assert self._tracer is not None
        if self._tracer.receipt().ended:
            raise RuntimeError("this tracer was shut down")


@pytest.mark.parametrize(
    ("check", "life"),
    [
        (check_all_have_arrived_when_the_server_stops, _DoesNotWait),
        (check_an_application_that_is_run_twice, _OnlyFlushes),
        (check_an_application_that_is_run_twice, _Refuses),
    ],
    ids=["does not wait", "does not shut down", "raises the second time"],
)
def test_a_wrong_lifespan_is_noticed(check: Callable[..., None], life: type[_lifespan.Life]) -> None:
    with pytest.raises((AssertionError, RuntimeError)):
        check(lambda: lambda app: life(None))
