"""Where the stream is, as a user writes it.

    redis://host:port                     one server, or any node of a cluster, or a Sentinel that watches one master
    redis://user:password@host,host:port  several to begin with: whichever answers
    rediss://…                            over TLS; the host's name is sent (SNI), and must be in its certificate
    redis://sentinel,sentinel/name        Sentinels, and which of their masters

What lies there is found out by asking. `valkey://` and `valkeys://` mean the same. A password in a URL is percent-encoded.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import unquote

import msgspec

from .._errors import ConfigurationError

__all__ = ["Address", "parse_address"]

_SCHEMES: Final = {"redis": False, "rediss": True, "valkey": False, "valkeys": True}
_PORT: Final = 6379
_SENTINEL_PORT: Final = 26379
_SHAPE: Final = "write it as redis://user:password@host:6379 (rediss:// with TLS), or as redis://sentinel,sentinel/name"


class Address(msgspec.Struct, frozen=True):
    """What a URL says."""

    hosts: tuple[tuple[str, int], ...]
    secure: bool = False
    username: str = ""
    password: str = ""
    name: str = ""
    """Of the master that Sentinels watch; empty: the hosts are no Sentinels, or watch one."""

    def __repr__(self) -> str:
        return f"{'rediss' if self.secure else 'redis'}://" + ",".join(f"{host}:{port}" for host, port in self.hosts)


def parse_address(url: str) -> Address:
    """The address that a URL names. `ConfigurationError` of one line, without the password, for one that names none."""
    scheme, separator, rest = url.partition("://")
    if scheme not in _SCHEMES or not separator:
        known = scheme if separator and scheme.isalnum() else "missing"  # anything else may be a password
        raise ConfigurationError(f"not the URL of a stream, its scheme is {known[:20]!r}: {_SHAPE}")
    authority, _, name = rest.partition("/")
    if "@" in name:
        raise ConfigurationError(f"the URL of a stream has a / before its @; inside a password it is %2F: {_SHAPE}")
    login, _, places = authority.rpartition("@")
    username, _, password = login.partition(":")
    if "?" in rest or "#" in rest:
        raise ConfigurationError(
            f"the URL of a stream has no ? and no #; inside a password they are %3F and %23: {_SHAPE}"
        )
    name = _master(unquote(name.rstrip("/")))
    default = _SENTINEL_PORT if name else _PORT
    hosts = tuple(_host(place.strip(), default) for place in places.split(","))
    return Address(hosts, _SCHEMES[scheme], unquote(username), unquote(password), name)


def _master(name: str) -> str:
    """What stands after the slash: a name, or database 0, which goes without saying."""
    is_number = name.isascii() and name.isdigit()
    if is_number and int(name):
        raise ConfigurationError(f"the stream lives in database 0, the only one that a cluster has: leave /{name} out")
    return "" if is_number else name


def _host(place: str, default: int) -> tuple[str, int]:
    if place.startswith("["):  # an IPv6 address
        host, _, port = place[1:].partition("]")
        port = port.removeprefix(":")
    else:
        host, _, port = place.partition(":")
    if not host or (port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536)):
        raise ConfigurationError(f"the URL of a stream names {place[:60]!r}, which is no host and port: {_SHAPE}")
    return host, int(port or default)
