"""Where a ClickHouse store is: the URL people give.

    clickhouse://user:password@host:8123/database      plain HTTP; the port of ClickHouse's HTTP interface
    clickhouses://user:password@host/database          TLS, 8443 where no port is given

`http://` and `https://` mean the same. Without user and database: `default` and `asynctrace`. What is special in a user name
or password is percent-encoded.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote, urlsplit

import msgspec

from ..store import StoreError

__all__ = ["Place", "parse_url"]

SCHEMES: Final = {"clickhouse": "http", "http": "http", "clickhouses": "https", "https": "https"}
PORTS: Final = {"http": 8123, "https": 8443}
EXAMPLE: Final = "clickhouse://user:password@host:8123/database"


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A database of a server."""

    scheme: str
    host: str
    port: int
    database: str
    user: str
    password: str

    @property
    def url(self) -> str:
        """Of the HTTP interface. Nothing secret."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}/"

    def __str__(self) -> str:
        return f"{self.url}{self.database}"

    def __repr__(self) -> str:
        return f"Place({str(self)!r}, user={self.user!r})"


def parse_url(url: str) -> Place:
    """`StoreError` for what is no such URL; the message does not repeat it, there may be a password in it."""
    try:
        parts = urlsplit(url)
        scheme = SCHEMES[parts.scheme]
        port, host = parts.port or PORTS[scheme], parts.hostname
    except (KeyError, ValueError):
        raise StoreError(f"the store's URL is none of ClickHouse's: it looks like {EXAMPLE}") from None
    database = unquote(parts.path.strip("/")) or "asynctrace"
    if not host or not (database.isascii() and database.isidentifier()) or parts.query or parts.fragment:
        raise StoreError(f"the store's URL needs a host and one database name, nothing else: {EXAMPLE}")
    user, password = unquote(parts.username or "default"), unquote(parts.password or "")
    if not f"{user}{password}".isprintable():  # both travel in headers
        raise StoreError(f"the store's URL has a user or password with a line break or the like in it: {EXAMPLE}")
    return Place(scheme=scheme, host=host, port=port, database=database, user=user, password=password)
