"""What stands between a client and a server, and may fail in ways that a server does not: each in a few lines."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

__all__ = ["Front", "front"]


class Front:
    """Forwards, until it is told otherwise."""

    def __init__(self, port: int) -> None:
        self.url = ""
        self.names: list[str | None] = []
        """The host names that clients asked for (SNI)."""
        self.taken = 0
        """Connections that were accepted."""
        self.hung = False
        """From now on connections are accepted, and nothing is forwarded on new ones."""
        self.cuts_after = b""
        """The next command with these bytes is forwarded, and the connection closed where its answer should come."""
        self._cut: set[asyncio.StreamReader] = set()
        self._port = port
        self._generation = 0

    def drop_silently(self) -> None:
        """As a NAT that forgot the connections: those that are open carry nothing any more and are not closed."""
        self._generation += 1

    def leads_to(self, port: int) -> None:
        """As a name that means another server: new connections go there, those that are open stay."""
        self._port = port

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.taken += 1
        generation = -1 if self.hung else self._generation
        there, onward = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            await asyncio.gather(
                self._pipe(reader, onward, generation, there), self._pipe(there, writer, generation, reader)
            )
        finally:
            onward.close()
            writer.close()

    async def _pipe(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, generation: int, answers: asyncio.StreamReader
    ) -> None:
        with suppress(OSError):
            while words := await source.read(65536):
                if source in self._cut:
                    break
                if self.cuts_after and self.cuts_after in words:
                    self._cut.add(answers)
                    self.cuts_after = b""
                if generation == self._generation:
                    target.write(words)
                    await target.drain()
            target.close()


@asynccontextmanager
async def front(
    port: int, secure: ssl.SSLContext | None = None, *, host: str = "127.0.0.1", own: int = 0
) -> AsyncIterator[Front]:
    """Before the server on this port. `secure`: speaks TLS to clients; `own`: the port it has itself."""
    made = Front(port)
    tasks: set[asyncio.Task[None]] = set()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(made._serve(reader, writer))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    if secure is not None:
        secure.sni_callback = lambda _line, name, _context: made.names.append(name)
    server = await asyncio.start_server(accept, host, own, ssl=secure)
    made.url = f"{'rediss://localhost' if secure else f'redis://{host}'}:{server.sockets[0].getsockname()[1]}"
    try:
        yield made
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
