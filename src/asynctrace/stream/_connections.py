"""How a server is reached: one redis-py client for each address, with our patience instead of its own.

Promises: no client waits longer than it was told, for a connection, for a send, for an answer; none repeats a command by
itself; a password that is asked for with each new connection may change at any time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

from .._errors import ConfigurationError
from ._address import Address

if TYPE_CHECKING:
    from asyncio import StreamWriter

    from redis.asyncio import Redis

__all__ = ["Connections", "Credentials", "taken_apart"]

Credentials: TypeAlias = Callable[[], tuple[str, str]]
"""Gives user name (empty: the default user) and password, in a thread, each time a connection is opened."""


class Connections(msgspec.Struct, frozen=True):
    """Opens clients."""

    address: Address
    timeout: float
    """Seconds for each of: connecting, sending, waiting for an answer."""
    ca_file: str | Path | None = None
    credentials: Credentials | None = None

    @property
    def can_rotate(self) -> bool:
        """Whether another try may come with another password."""
        return self.credentials is not None

    def open(self, host: str, port: int, *, anonymous: bool = False) -> Redis:
        """A client for one server; nothing is sent yet. `anonymous`: without user and password, as Sentinels are asked."""
        try:
            from redis.asyncio import Redis
            from redis.asyncio.retry import Retry
            from redis.backoff import NoBackoff
        except ModuleNotFoundError:
            raise ConfigurationError("a stream needs redis-py: pip install 'asynctrace[redis]'") from None

        return Redis(
            host=host,
            port=port,
            protocol=2,
            socket_timeout=self.timeout,
            socket_connect_timeout=self.timeout,
            socket_keepalive=True,
            retry=Retry(NoBackoff(), 0),
            **({} if anonymous else self._login()),
            **self._tls(),
        )

    def _login(self) -> dict[str, Any]:
        if self.credentials is not None:
            return {"credential_provider": _asking(self.credentials)}
        return {"username": self.address.username or None, "password": self.address.password or None}

    def _tls(self) -> dict[str, Any]:
        if not self.address.secure:
            return {}
        return {
            "ssl": True,
            "ssl_ca_certs": None if self.ca_file is None else str(self.ca_file),
            "ssl_check_hostname": True,
        }


def taken_apart(client: Redis) -> list[StreamWriter]:
    """The writers of a client's connections, which forget them: for a forked child, which must not say good-bye on the
    sockets of its parent."""
    pool: Any = client.connection_pool
    writers = []
    for connection in (*getattr(pool, "_available_connections", ()), *getattr(pool, "_in_use_connections", ())):
        if (writer := getattr(connection, "_writer", None)) is not None:
            writers.append(writer)
            connection._reader = connection._writer = None
    return writers


def _asking(credentials: Credentials) -> Any:
    from redis import exceptions as redis
    from redis.credentials import CredentialProvider

    class Asking(CredentialProvider):
        def get_credentials(self) -> tuple[str] | tuple[str, str]:
            try:
                username, password = credentials()
            except Exception as error:
                # after any other error redis-py goes on to use the connection, which nobody logged in on
                raise redis.ConnectionError(f"the credentials cannot be had: {error}") from error
            return (username, password) if username else (password,)

        async def get_credentials_async(self) -> tuple[str] | tuple[str, str]:
            return await asyncio.to_thread(self.get_credentials)

    return Asking()
