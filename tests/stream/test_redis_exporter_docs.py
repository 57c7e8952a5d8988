"""What is written about RedisExporter works: its how-to, its example, the rights it is said to need."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from pathlib import Path

import pytest

from ..docs._pages import run_page
from ..exporters.conftest import a_span, batch_of
from .exporting import exporter_of, names_at
from .places import Place
from .servers import Servers

REPOSITORY = Path(__file__).parents[2]
PAGE = REPOSITORY / "docs" / "how-to" / "write-straight-to-the-stream.md"


def test_the_how_to_does_what_it_says(servers: Servers, tmp_path: Path) -> None:
    node = servers.standalone()
    page = PAGE.read_text().replace("127.0.0.1:6379", node.address)
    folder = tmp_path / "reader"
    folder.mkdir()
    assert run_page(page, folder) == 2
    place = Place(node.url, 1, False, "standalone", [node])
    assert asyncio.run(names_at(place, "at")) == ["checkout"] * 2


def test_the_example_arrives(servers: Servers, monkeypatch: pytest.MonkeyPatch) -> None:
    node = servers.standalone()
    monkeypatch.setenv("ASYNCTRACE_STREAM", node.url)
    program = str(REPOSITORY / "examples" / "straight_to_redis.py")
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "accepted=6" in done.stdout
    names = asyncio.run(names_at(Place(node.url, 1, False, "standalone", [node]), "at"))
    assert sorted(names) == ["charge"] * 3 + [f"order {order}" for order in range(3)]


def rules_of(page: str) -> list[str]:
    """What the page gives to a user, as `ACL SETUSER` wants it."""
    found = re.search(r"ACL SETUSER shop on '>password' (.*?)\n```", page, re.DOTALL)
    assert found is not None
    return [word.strip("'").replace("\\|", "|") for word in found[1].replace("\\\n", " ").split()]


@pytest.mark.parametrize("kind", ["standalone", "cluster of 6"])
def test_the_rights_on_the_page_are_enough(servers: Servers, kind: str) -> None:
    nodes = servers.cluster(6).nodes if kind == "cluster of 6" else [servers.standalone()]
    for node in nodes:
        node.ask("ACL", "SETUSER", "shop", "on", ">password", *rules_of(PAGE.read_text()))
    url = f"redis://shop:password@{nodes[0].address}"

    async def accepted() -> int:
        exporter = exporter_of(Place(url, 1, False, kind, nodes), "at")
        results = [await exporter.export(batch_of([a_span(number)], key=f"log:{number}:1")) for number in range(20)]
        await exporter.aclose()
        return sum(result.accepted for result in results)

    assert asyncio.run(accepted()) == 20
    denied = [entry for node in nodes for entry in node.ask("ACL", "LOG")]
    assert denied == []
