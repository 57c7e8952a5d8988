"""Makes `payloads/` anew: runs `clients/with_a_model.py` under each instrumentation and keeps what that sends.

    python -m tests.collector.capture [NAME…]

Of one program all bodies for traces are joined to one file, those for logs to another: requests laid end to end are one
request. It fails where a body names this machine or its files.
"""

from __future__ import annotations

import gzip
import os
import socket
import subprocess
import sys
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

__all__ = ["CLIENTS", "PAYLOADS", "captured"]

CLIENTS = Path(__file__).parent / "clients"
PAYLOADS = Path(__file__).parent / "payloads"
NOBODY = {
    "OTEL_RESOURCE_ATTRIBUTES": "host.name=laptop,host.id=0,os.version=1,process.pid=1,service.instance.id=1",
    "LOGFIRE_SERVICE_VERSION": "1",
}
"""What some would tell of this machine."""
SUFFIXES = {"/v1/traces": ".pb", "/v1/logs": ".logs.pb"}


class _Keeper(BaseHTTPRequestHandler):
    """A collector that keeps bodies."""

    protocol_version = "HTTP/1.1"
    bodies: defaultdict[str, list[bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        self.bodies[self.path].append(body)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        """Nobody wants to read it."""


def captured(name: str) -> dict[str, bytes]:
    """The bodies that `with_a_model.py` sends under this instrumentation, by the end of their file's name."""
    keeper = type("_KeeperOfOne", (_Keeper,), {"bodies": defaultdict(list)})
    with ThreadingHTTPServer(("127.0.0.1", 0), keeper) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        clean = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
        command = [sys.executable, "with_a_model.py", name, f"http://127.0.0.1:{server.server_port}"]
        subprocess.run(command, check=True, cwd=CLIENTS, env=clean | NOBODY, timeout=120)
        server.shutdown()
    return {suffix: b"".join(keeper.bodies[path]) for path, suffix in SUFFIXES.items() if keeper.bodies[path]}  # type: ignore[attr-defined]


def check_it_names_nobody(body: bytes) -> None:
    host = socket.gethostname().encode()
    as_a_value = b"\x0a" + bytes([len(host)]) + host  # a short name may be part of a word
    for private in (as_a_value, *(str(path).encode() for path in (Path.home(), CLIENTS, sys.prefix))):
        if private in body:
            raise SystemExit(f"a body names {private!r}")


def main(names: list[str]) -> None:
    sys.path.insert(0, str(CLIENTS))
    import with_a_model  # type: ignore[import-not-found]

    for name in names or with_a_model.INSTRUMENTATIONS:
        for suffix, body in captured(name).items():
            check_it_names_nobody(body)
            (PAYLOADS / f"{name}{suffix}").write_bytes(body)
            print(f"{name}{suffix}: {len(body)} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
