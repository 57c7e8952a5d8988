"""Every command keeps to one slot: on the wire, where each test of this folder looks, and for the servers that answer."""

from __future__ import annotations

import pytest

from asynctrace.stream import _scripts

from . import slots
from .places import Place
from .streams import a_message, a_whole_life, opened

pytestmark = pytest.mark.anyio

SCRIPTS = {name: value for name, value in vars(_scripts).items() if isinstance(value, _scripts.Script)}


async def test_no_server_sees_keys_of_two_slots(everywhere: Place, prefix: str, checked: slots.Checked) -> None:
    before = [crossings(everywhere, number) for number in range(len(everywhere.nodes))]
    async with opened(everywhere, prefix, shards=1, dead=1) as stream:
        await a_whole_life(stream, everywhere.nodes, prefix)
    assert [crossings(everywhere, number) for number in range(len(everywhere.nodes))] == before
    assert "EVAL" in checked.commands
    assert set(checked.commands) <= {
        *("EVAL", "WAIT", "HELLO", "INFO", "AUTH", "PING", "CLIENT|SETINFO", "CLUSTER|INFO", "CLUSTER|SLOTS"),
        *("SENTINEL|MASTERS", "SENTINEL|GET-MASTER-ADDR-BY-NAME"),
    }


def crossings(place: Place, number: int) -> str:
    """How often a server has refused keys of two slots."""
    return place.nodes[number].section("errorstats").get("errorstat_CROSSSLOT", "count=0")


async def test_a_whole_life_has_every_script(
    standalone: Place, prefix: str, checked: slots.Checked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "SCRIPTS", {})
    async with opened(standalone, prefix, shards=1, dead=1) as stream:
        await a_whole_life(stream, standalone.nodes, prefix)
        await stream.append(a_message(99))
        assert await stream.claim("who leaves") is not None
    assert {name for name, script in SCRIPTS.items() if script.text not in slots.SCRIPTS.values()} == set()
