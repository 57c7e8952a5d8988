"""Real Redis servers (Debian: redis-server, redis-sentinel, redis-tools), alone and together, as the tests need them.

What they promise: every port is free when it is chosen, what they keep lies in a folder of the test, and none outlives the
tests: each is killed when its folder is given up, and by the kernel when the tests themselves are killed.
"""

from __future__ import annotations

import contextlib
import os
import ssl
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import trustme

from .node import DEADLINE, Node, PortTaken, RedisRefused, eventually, free_ports, program_called

__all__ = [
    "KEPT",
    "Authority",
    "Cluster",
    "Node",
    "RedisRefused",
    "Sentinels",
    "Servers",
    "eventually",
    "free_ports",
    "running",
]

NODE_TIMEOUT = 2000
"""Milliseconds until the nodes of a cluster hold one of them for dead. Less, and a busy machine loses healthy ones."""

SERVERLESS_RULES = ["+@all", "-config", "-keys", "-monitor", "-select", "-info", "-debug", "-cluster|nodes", "-wait"]
"""What a managed server with one address refuses, at its strictest."""

_OPTIONS = "--bind 127.0.0.1 -::1 --repl-diskless-sync-delay 0 --repl-ping-replica-period 1"
PLAIN = ["--save", "", *_OPTIONS.split()]
"""Nothing on disk, nothing to be reached from elsewhere, a replica that does not wait for others, and a master that sends
something every second: CLUSTER SLOTS leaves a replica out to which nothing was ever sent."""

KEPT = ["--appendonly", "yes", "--appendfsync", "no"]
"""A server that is killed has everything that it answered for, when it is started again: it was written, though not flushed
to the disk, which only a machine that dies could tell."""

MASTER = "asynctrace-tests"
"""The name of the master that the Sentinels watch."""


@dataclass
class Cluster:
    """Nodes that share the slots. The first masters, then their replicas, as they were created."""

    nodes: list[Node]

    @property
    def url(self) -> str:
        return self.nodes[0].url

    def alive(self) -> list[Node]:
        return [
            node for node in self.nodes if node.process is not None and node.process.poll() is None and not node.stopped
        ]

    def table(self) -> list[list[str]]:
        """The lines of CLUSTER NODES as a living node tells them, in fields."""
        return [line.split() for line in self.alive()[0].ask("CLUSTER", "NODES").decode().splitlines()]

    def masters(self) -> list[Node]:
        """Those that answer for slots at the moment."""
        return [
            self.at(fields[1]) for fields in self.table() if "master" in fields[2] and _healthy(fields) and fields[8:]
        ]

    def replicas(self) -> list[Node]:
        return [self.at(fields[1]) for fields in self.table() if "slave" in fields[2] and _healthy(fields)]

    def replica_of(self, master: Node) -> Node:
        node_id = master.node_id()

        def known() -> list[str]:
            return [fields[1] for fields in self.table() if fields[3] == node_id and _healthy(fields)]

        return self.at(eventually(known, f"a replica of {master.address} is known")[0])

    def at(self, address: str) -> Node:
        port = int(address.partition("@")[0].rpartition(":")[2])
        return next(node for node in self.nodes if node.port == port)

    def master_of(self, slot: int) -> Node:
        for first, last, (_, port, *_), *_ in self.alive()[0].ask("CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == port)
        raise AssertionError(f"no node has slot {slot}")

    def is_well(self) -> bool:
        """Every node knows all the others and all slots are served."""
        states = [node.ask("CLUSTER", "INFO").decode() for node in self.alive()]
        return all("cluster_state:ok" in state for state in states)

    def wait_until_well(self) -> None:
        eventually(self.is_well, "the cluster serves every slot")

    def wait_until_known(self) -> None:
        """Every node knows all the others; with six, every master has a replica that follows it."""
        self.wait_until_well()
        wanted = len(self.nodes) // 6
        for node in self.alive():
            eventually(lambda node=node: _knows_all(node, len(self.nodes), wanted), "every node knows the others")
        for replica in self.replicas():
            eventually(lambda replica=replica: _follows(replica), "a replica follows")

    def move(self, slots: int, source: Node, target: Node) -> None:
        """As an operator does it, while commands flow."""
        ends = ["--cluster-from", source.node_id(), "--cluster-to", target.node_id()]
        _cli("--cluster", "reshard", source.address, *ends, "--cluster-slots", str(slots), "--cluster-yes")


def _healthy(fields: list[str]) -> bool:
    return not {"fail", "fail?", "noaddr", "handshake"} & set(fields[2].split(","))


@dataclass
class Sentinels:
    """A master, its replica and three Sentinels that agree about them."""

    master: Node
    replica: Node
    watchers: list[Node]
    name: str = MASTER

    @property
    def url(self) -> str:
        return f"redis://{','.join(node.address for node in self.watchers)}/{self.name}"

    def current(self) -> Node:
        """Whom the Sentinels take for the master."""
        _, port = self.watchers[0].ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.name)
        return next(node for node in (self.master, self.replica) if node.port == int(port))


@dataclass
class Authority:
    """A certificate authority that nobody knows, and a certificate of it for `localhost`."""

    folder: Path
    names: tuple[str, ...] = ("localhost", "127.0.0.1")
    ca_file: Path = field(init=False)
    certificate: Path = field(init=False)
    key: Path = field(init=False)

    def __post_init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="authority-", dir=self.folder))
        authority = trustme.CA()
        issued = authority.issue_cert(*self.names)
        self.ca_file, self.certificate, self.key = (self.folder / name for name in ("ca.pem", "cert.pem", "key.pem"))
        authority.cert_pem.write_to_path(str(self.ca_file))
        issued.cert_chain_pems[0].write_to_path(str(self.certificate))
        issued.private_key_pem.write_to_path(str(self.key))

    def options(self) -> list[str]:
        return [
            *("--tls-cert-file", str(self.certificate), "--tls-key-file", str(self.key)),
            *("--tls-ca-cert-file", str(self.ca_file), "--tls-auth-clients", "no"),
        ]

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.ca_file))


class Servers:
    """Starts servers in a folder, and ends all of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.nodes: list[Node] = []

    def close(self) -> None:
        for node in self.nodes:
            node.kill()

    def node(self, *options: str | int) -> Node:
        """A server that keeps nothing on disk, unless the options say so."""
        return self._started(lambda port: ["--port", str(port), *PLAIN, *map(str, options)])

    def standalone(self, *options: str | int) -> Node:
        return self.node(*options)

    def replicated(self, *options: str | int) -> tuple[Node, Node]:
        """A master and its replica, which follows it."""
        master = self.node(*options)
        return master, self.replica_of(master, *options)

    def replica_of(self, master: Node, *options: str | int) -> Node:
        replica = self.node("--replicaof", "127.0.0.1", master.port, *options)
        eventually(
            lambda: f"port={replica.port},state=online" in str(master.section("replication")), "the replica follows"
        )
        return replica

    def sentinels(self) -> Sentinels:
        master, replica = self.replicated()
        setup = Sentinels(master, replica, [self._sentinel(master) for _ in range(3)])
        for watcher in setup.watchers:
            eventually(lambda watcher=watcher: self._knows(watcher), "a Sentinel knows the others and the replica")
        return setup

    def _sentinel(self, master: Node) -> Node:
        def options(port: int) -> list[str]:
            path = self._folder(port) / "sentinel.conf"  # it writes what it learns into this file
            path.write_text(
                f"port {port}\nbind 127.0.0.1\ndir {path.parent}\n"
                f"sentinel monitor {MASTER} 127.0.0.1 {master.port} 2\n"
                f"sentinel down-after-milliseconds {MASTER} {NODE_TIMEOUT}\n"
                f"sentinel failover-timeout {MASTER} 10000\n"
            )
            return [str(path)]

        return self._started(options, program="redis-sentinel")

    @staticmethod
    def _knows(watcher: Node) -> bool:
        flat = watcher.ask("SENTINEL", "MASTER", MASTER)
        told = dict(zip(flat[::2], flat[1::2], strict=True))
        return int(told[b"num-other-sentinels"]) == 2 and int(told[b"num-slaves"]) == 1

    def cluster(self, nodes: int, *options: str | int) -> Cluster:
        """1: a master with all slots. 3: three masters. 6: three masters with a replica each."""
        made = [self._member(*options) for _ in range(nodes)]
        cluster = Cluster(made)
        if nodes == 1:
            made[0].ask("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        else:
            _cli("--cluster", "create", *(node.address for node in made), "--cluster-replicas", str(nodes // 6),
                 "--cluster-yes")  # fmt: skip
        cluster.wait_until_known()
        return cluster

    def _member(self, *options: str | int) -> Node:
        return self._started(lambda port: ["--port", str(port), *PLAIN, *_membership(), *map(str, options)])

    def another_member(self, cluster: Cluster) -> Node:
        """A node without slots that joins, and stays a master when it has none again."""
        known = len(cluster.nodes)
        node = self._member("--cluster-allow-replica-migration", "no")
        _cli("--cluster", "add-node", node.address, cluster.alive()[0].address)
        cluster.nodes.append(node)
        eventually(lambda: all(len(cluster_of(each)) > known for each in cluster.alive()), "all know the new node")
        cluster.wait_until_well()
        return node

    def secured(self, authority: Authority, *options: str | int) -> Node:
        """A standalone server that speaks TLS only."""
        return self._started(
            lambda port: ["--port", "0", "--tls-port", str(port), *PLAIN, *authority.options(), *map(str, options)],
            secure=authority.context(),
        )

    def secured_unasked(self, authority: Authority) -> Node:
        """One whose certificate is for another name: nobody who checks it can ask whether it is there."""
        made = self.secured(Authority(self.folder))
        made.ask("CONFIG", "SET", "tls-cert-file", authority.certificate, "tls-key-file", authority.key)
        return made

    def serverless(self, authority: Authority) -> Node:
        """What a managed server shows: a cluster behind one host name, TLS, a user who may not look at the server."""
        node = self.secured(
            authority,
            *_membership(),
            *("--tls-cluster", "yes", "--cluster-announce-hostname", "localhost"),
            *("--cluster-preferred-endpoint-type", "hostname"),
        )
        node.ask("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
        eventually(lambda: b"cluster_state:ok" in node.ask("CLUSTER", "INFO"), "the cluster serves every slot")
        node.ask("ACL", "SETUSER", "tracer", "on", ">serverless", "~*", *SERVERLESS_RULES)
        return node

    def _started(
        self,
        options: Callable[[int], list[str]],
        program: str = "redis-server",
        secure: ssl.SSLContext | None = None,
    ) -> Node:
        """On a free port. Between choosing it and taking it somebody else may: then on another one."""
        while True:
            (port,) = free_ports(1)
            node = Node(port, self._folder(port), program, options(port), secure)
            self.nodes.append(node)
            try:
                return node.start()
            except PortTaken:
                continue

    def _folder(self, port: int) -> Path:
        folder = self.folder / f"redis-{port}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def cluster_of(node: Node) -> list[str]:
    """The members a node knows, without those it is only shaking hands with."""
    return [line for line in node.ask("CLUSTER", "NODES").decode().splitlines() if "handshake" not in line]


def _membership() -> list[str]:
    """The options of a member of a cluster."""
    (bus,) = free_ports(1)
    return [
        *("--cluster-enabled", "yes", "--cluster-port", str(bus), "--cluster-node-timeout", str(NODE_TIMEOUT)),
        *("--cluster-replica-validity-factor", "0"),
    ]


def _knows_all(node: Node, nodes: int, replicas: int) -> bool:
    slots = node.ask("CLUSTER", "SLOTS")
    return len(cluster_of(node)) == nodes and all(len(entry) == 3 + replicas for entry in slots)


def _follows(replica: Node) -> bool:
    told = replica.section("replication")
    return told["role"] == "slave" and told.get("master_link_status") == "up"


def _cli(*words: str) -> str:
    command = [program_called("redis-cli"), *words]
    ran = subprocess.run(
        command, capture_output=True, text=True, timeout=4 * DEADLINE, env={**os.environ, "LC_ALL": "C"}
    )
    assert ran.returncode == 0, f"{' '.join(words)}\n{ran.stdout}{ran.stderr}"
    return ran.stdout


@contextlib.contextmanager
def running(folder: Path) -> Iterator[Servers]:
    servers = Servers(folder)
    try:
        yield servers
    finally:
        servers.close()
