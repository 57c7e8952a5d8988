"""Servers that stop under load: each request that the middleware saw has arrived, and one that was cut off is `cancelled`.

The servers end by signals. A worker runs no exit hook of Python then, so what arrives is what the lifespan delivered.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from asynctrace.testing import Delay, FaultServer

from .sites import GUNICORN, UVICORN, UVICORNS, Kind, Site


def behind_door(kind: Kind) -> Kind:
    """The same server with the application behind the middleware."""
    command = (part.replace("web:", "behind_door:").replace("web.", "behind_door.") for part in kind.command)
    return dataclasses.replace(kind, command=tuple(command))


def check_that_stopping_loses_no_request(kind: Kind, folder: Path, **environment: str) -> None:
    with FaultServer.in_thread(default=Delay(0.05)) as far_side:
        site = Site(behind_door(kind), folder, far_side, **environment)
        with site.started():
            held, _ = site.ask_aside("hold")
            for _ in range(20):
                site.ask("work")
            site.stop()
        noted = site.notes().opened
        assert len(noted) == 21
        arrived = site.arrived()
        assert noted.keys() <= arrived.keys(), (
            f"{len(noted.keys() - arrived.keys())} requests have not arrived\n{site.log}"
        )
        assert set(arrived.values()) == {1}
        endings = site.endings()
        assert endings[held] == "cancelled"
        assert {endings[span] for span in noted if span != held} == {"ok"}
        resources = site.instances()
        assert all(len(names) == 1 for names in resources.values())
        assert len(set.union(*resources.values())) == len(resources), "two workers share an instance id"
        names = {span.span_id: span.name for span in site.spans()}
        assert {names[span] for span in noted if span != held} == {"GET /work"}
        assert not site.recovered, f"somebody else delivered\n{site.log}"
        site.check_nothing_is_left()


@pytest.mark.parametrize("kind", [UVICORN, UVICORNS, GUNICORN], ids=str)
def test_requests_of_a_server_that_stops_have_arrived(kind: Kind, tmp_path: Path) -> None:
    check_that_stopping_loses_no_request(kind, tmp_path)


def test_a_door_that_forgets_requests_that_are_cut_off_is_noticed(tmp_path: Path) -> None:
    fault = (
        "from asynctrace.middleware._exchange import Exchange\n"
        "async def close(self, error):\n    self.run._step_out()\n"
        "Exchange.close = close"
    )
    with pytest.raises(AssertionError):
        check_that_stopping_loses_no_request(UVICORN, tmp_path, FAULT=fault)
