"""The life of a tracer in an ASGI server's worker, as the `lifespan` of Starlette, FastAPI or Litestar.

    worker starts ──▶ lifespan.startup ──▶ lanes on the server's loop ── requests ──▶ lifespan.shutdown ──▶ shutdown()

Promises:

1. The server's worker is not told that the application has shut down before everything that ended is settled, or the
   tracer's `shutdown_timeout` is over.
2. A far side that is away never fails a start or a stop of the server.
3. Entering it again after its tracer was shut down, as a test client does that runs an application twice in one process,
   neither waits nor raises: spans are counted as dropped for `after_shutdown` until the program makes another tracer.

A web server's worker ends by a signal, or by `os._exit()`: no exit hook of Python runs then. This is the last code that does.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType

from ..runtime import Tracer, default_tracer
from ._failures import checked_tracer

__all__ = ["Life", "lifespan"]


def lifespan(tracer: Tracer | None = None) -> Callable[[object], AbstractAsyncContextManager[None]]:
    """Start `tracer` with the server's worker, and shut it down with it: `FastAPI(lifespan=lifespan())`.

    What is returned takes the application, and returns an async context manager (ASGI lifespan protocol 2.0, as Starlette,
    FastAPI and Litestar offer it). None is the default tracer, looked up when the worker starts, so `configure()` may be
    called after the application is made. A lifespan of your own goes around it or inside, by `async with`:

        @asynccontextmanager
        async def own(app):
            async with asynctrace.middleware.lifespan()(app), database() as connection:
                yield {"connection": connection}

    Raises `MisuseError` for what is no tracer.
    """
    checked_tracer(tracer, "FastAPI(lifespan=lifespan())")

    def with_app(app: object) -> AbstractAsyncContextManager[None]:
        return Life(tracer)

    return with_app


class Life:
    """From the worker's start to its end."""

    def __init__(self, tracer: Tracer | None) -> None:
        self._tracer = tracer

    async def __aenter__(self) -> None:
        self._tracer = self._tracer or default_tracer()
        await self._tracer.start()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._tracer is not None:
            await self._tracer.shutdown()
