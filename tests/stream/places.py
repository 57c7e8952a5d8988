"""Every kind of Redis that a URL can lead to, and what has to be known to get there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from .servers import Authority, Node, Servers

__all__ = ["PLACES", "Place"]


@dataclass
class Place:
    """Where a stream can live: what a user would write to get there."""

    url: str
    masters: int
    replicas: bool
    kind: str
    nodes: list[Node]
    ca_file: Path | None = None
    username: str = ""
    password: str = ""

    @property
    def entrances(self) -> list[tuple[str, int]]:
        """Hosts and ports in the URL."""
        hosts = urlsplit(self.url).netloc.split(",")
        return [(host, int(port)) for host, _, port in (each.rpartition(":") for each in hosts)]

    @property
    def name(self) -> str:
        """Of the master, where the URL has one."""
        return urlsplit(self.url).path.strip("/")


def _standalone(servers: Servers) -> Place:
    node = servers.standalone()
    return Place(node.url, 1, False, "standalone", [node])


def _replicated(servers: Servers) -> Place:
    master, replica = servers.replicated()
    return Place(master.url, 1, True, "standalone", [master, replica])


def _watched(servers: Servers) -> Place:
    setup = servers.sentinels()
    return Place(setup.url, 1, True, "sentinel", [setup.master, setup.replica])


def _clustered(servers: Servers, nodes: int) -> Place:
    cluster = servers.cluster(nodes)
    return Place(cluster.url, min(nodes, 3), nodes == 6, "cluster", cluster.nodes)


def _secured(servers: Servers) -> Place:
    authority = Authority(servers.folder)
    node = servers.secured(authority)
    node.ask("CONFIG", "SET", "requirepass", "secret")
    node.password = "secret"
    return Place(f"rediss://localhost:{node.port}", 1, False, "standalone", [node], authority.ca_file, "", "secret")


def _serverless(servers: Servers) -> Place:
    authority = Authority(servers.folder)
    node = servers.serverless(authority)
    url = f"rediss://localhost:{node.port}"
    return Place(url, 1, False, "cluster", [node], authority.ca_file, "tracer", "serverless")


PLACES: dict[str, Callable[[Servers], Place]] = {
    "standalone": _standalone,
    "with a replica": _replicated,
    "sentinel": _watched,
    "cluster of 1": lambda servers: _clustered(servers, 1),
    "cluster of 3": lambda servers: _clustered(servers, 3),
    "cluster of 6": lambda servers: _clustered(servers, 6),
    "tls": _secured,
    "serverless": _serverless,
}
"""Every kind of Redis that a URL can lead to."""
