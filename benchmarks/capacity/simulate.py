"""Where does each part of a fleet saturate, what does a million spans a second need, and what happens when a part is away?

A simulation with one seed: requests arrive by chance, wait their turn at each part, and cost what `measure.py` measured
(`costs.json`). It writes the tables of docs/explanation/capacity.md:

    python benchmarks/capacity/simulate.py            # prints them
    python benchmarks/capacity/simulate.py --write    # into the page
    python benchmarks/capacity/simulate.py --check    # exits with 1 when the page says something else

Nothing of it is measured here. What it knows of the parts stands in `_fleet.py`; every second of every run the spans are
counted, and a run in which one is missing or double raises.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from _fleet import Costs, Fleet, NotConserved, Plan, merges_of  # noqa: E402  (its folder is not on the path of who imports this file)

__all__ = [
    "PAGE",
    "PARTS",
    "Fleet",
    "Measured",
    "NotConserved",
    "Plan",
    "costs_of",
    "saturation",
    "sections",
    "written",
]

PAGE: Final = HERE.parents[1] / "docs" / "explanation" / "capacity.md"
SEED: Final = 7
TARGET: Final = 1_000_000
"""Spans a second."""
STORED: Final = 10_000_000_000
HEADROOM: Final = 0.6
"""Of its saturation is what a part is planned for: it survives the loss of some, and catches up afterwards."""
SHARE: Final = 0.05
"""Of the fleet and its load, where minutes are simulated: all parts but the masters are cut alike."""
AMPLE: Final = 64
REQUESTS: Final = 40_000
"""Are enough to see what is let through."""


class Measured(msgspec.Struct, frozen=True):
    """What `measure.py` wrote."""

    command: str
    machine: str
    costs: Costs


def costs_of(path: Path = HERE / "costs.json") -> Measured:
    return msgspec.json.decode(path.read_bytes(), type=Measured)


# ── where each part saturates ───────────────────────────────────────────────────────────────────────────────


class Part(msgspec.Struct, frozen=True):
    """A part, alone among others of which there are enough."""

    name: str
    what: str
    field: str
    units: int
    is_stored: bool
    """Whether what counts is what was stored, or what was acknowledged."""


PARTS: Final = (
    Part("ingest process", "its CPU: one core", "ingests", 1, False),
    Part("Redis master", "its one thread, or its link", "masters", 1, False),
    Part("worker process", "its CPU: one core", "workers", 1, True),
    Part("ClickHouse core", "inserts, their merges, and lists", "store_cores", 4, True),
)


def saturation(part: Part, costs: Costs, spans_per_request: int) -> float:
    """Spans a second that one unit lets through, however many are offered."""
    offered = 1.3 * part.units * roughly(part, costs, spans_per_request)
    plan = Plan(
        spans_per_second=offered,
        spans_per_request=spans_per_request,
        ingests=_enough(PARTS[0], costs, offered, spans_per_request),
        masters=AMPLE,
        workers=_enough(PARTS[2], costs, offered, spans_per_request),
        store_cores=_enough(PARTS[3], costs, offered, spans_per_request),
        lists_per_second=2.0,
    )
    plan = msgspec.structs.replace(plan, **{part.field: part.units})
    fleet = Fleet(plan, costs, SEED)
    end = 15.0 if part.is_stored else min(15.0, REQUESTS * spans_per_request / offered)
    begin = end / 3
    fleet.run_until(end)
    done = fleet.seen if part.is_stored else fleet.acknowledged
    return sum(spans for when, _, spans in done if when >= begin) / (end - begin) / part.units


def roughly(part: Part, costs: Costs, spans: int) -> float:
    """What a unit would do if nothing ever waited."""
    work = {
        "ingests": costs.ingest_span + costs.ingest_request / spans,
        "masters": (costs.master_message / spans + costs.master_kilobyte * costs.message_bytes_of_span / 1024) * 0.5,
        "workers": costs.worker_span + costs.worker_message / spans,
        "store_cores": costs.store_span + merges_of(40_000) * costs.merge_span + costs.store_insert / 40_000,
    }
    return 1e6 / work[part.field]


def _enough(part: Part, costs: Costs, offered: float, spans: int) -> int:
    return math.ceil(2 * offered / roughly(part, costs, spans))


def saturation_rows(costs: Costs) -> tuple[list[list[str]], dict[str, int]]:
    """Lines of the table, and how many units of each part carry `TARGET` spans a second."""
    rows, units = [], {}
    for part in PARTS:
        large, small = saturation(part, costs, 400), saturation(part, costs, 20)
        needed = math.ceil(TARGET / large / HEADROOM)
        units[part.field] = needed
        rows.append([part.name, part.what, _rate(large), _rate(small), str(needed)])
    return rows, units


# ── the fleet at the target, and with something away ────────────────────────────────────────────────────────


def plan_for(units: dict[str, int], share: float = 1.0) -> Plan:
    """A fleet for that share of the target; at least three masters, as a cluster has."""
    return Plan(
        spans_per_second=TARGET * share,
        ingests=max(2, math.ceil(units["ingests"] * share)),
        masters=max(3, math.ceil(units["masters"] * share)),
        workers=max(2, math.ceil(units["workers"] * share)),
        store_cores=max(2, math.ceil(units["store_cores"] * share)),
        shards=max(4, round(64 * share)),
    )


def steady_rows(plan: Plan, costs: Costs) -> list[list[str]]:
    fleet = Fleet(plan, costs, SEED)
    end = 20.0
    fleet.run_until(end)
    groups = [
        ("ingest processes", [each.cpu.busy / end for each in fleet.ingests]),
        ("Redis masters", [each.cpu.busy / end for each in fleet.masters]),
        ("workers", [each.busy / end for each in fleet.workers]),
        ("ClickHouse cores", [fleet.store.busy / end / plan.store_cores]),
    ]
    counts = [plan.ingests, plan.masters, plan.workers, plan.store_cores]
    rows = [
        [name, str(count), _percent(sum(busy) / len(busy)), _percent(max(busy))]
        for (name, busy), count in zip(groups, counts, strict=True)
    ]
    return [
        *rows,
        ["answer to the sender", "", *_percentiles(fleet.acknowledged)],
        ["until it can be seen", "", *_percentiles(fleet.seen)],
    ]


class Trouble(msgspec.Struct, frozen=True):
    """Something is away from second 20 on."""

    name: str
    away: float
    until: float
    """When the run ends."""
    part: str
    master_bytes: int = 6 * 1024**3


TROUBLES: Final = (
    Trouble("nothing", 0, 60, ""),
    Trouble("a Redis master, 4 s", 4, 60, "master"),
    Trouble("all Redis masters, 60 s", 60, 240, "masters"),
    Trouble("a worker, for good", 0, 300, "worker"),
    Trouble("ClickHouse, 10 min", 600, 2600, "store"),
    Trouble("ClickHouse, 10 min, masters of 0.5 GB", 600, 2600, "store", 512 * 1024**2),
)
BEGIN: Final = 20.0


def trouble_fleet(trouble: Trouble, plan: Plan, costs: Costs) -> Fleet:
    """The run, at its end."""
    fleet = Fleet(msgspec.structs.replace(plan, master_bytes=trouble.master_bytes), costs, SEED)
    at = fleet.clock.at
    if trouble.part in ("master", "masters"):
        for number in range(1 if trouble.part == "master" else plan.masters):
            at(BEGIN, fleet.master_goes, number)
            at(BEGIN + trouble.away, fleet.master_comes, number)
    elif trouble.part == "worker":
        at(BEGIN, fleet.worker_dies, 0)
    elif trouble.part == "store":
        at(BEGIN, fleet.store_goes)
        at(BEGIN + trouble.away, fleet.store_comes)
    fleet.run_until(trouble.until)
    return fleet


def trouble_row(trouble: Trouble, plan: Plan, costs: Costs) -> list[str]:
    fleet = trouble_fleet(trouble, plan, costs)
    books = fleet.books
    latest = max(waited for _, waited, _ in fleet.acknowledged)
    return [
        trouble.name,
        f"{latest:.1f} s",
        str(books.refused),
        _count(books.most_spilled),
        f"{books.most_streamed_bytes / 1e9:.1f} GB",
        _caught_up(fleet, BEGIN + trouble.away),
        str(books.offered - books.waiting - books.received - books.spilled - books.streamed - books.stored),
    ]


def _caught_up(fleet: Fleet, since: float) -> str:
    """From then on until what is new can be seen within 10 seconds again."""
    late = [when for when, waited, _ in fleet.seen if waited > 10 and when > since]
    if late and max(late) > fleet.clock.now - 10:
        return "not yet"
    return f"{max(late) - since:.0f} s" if late else "at once"


# ── as text ─────────────────────────────────────────────────────────────────────────────────────────────────


def sections(measured: Measured, *, whole: bool) -> dict[str, str]:
    """What stands below each heading. `whole`: with what takes a minute to simulate."""
    costs = measured.costs
    rows, units = saturation_rows(costs)
    head = ["part", "what saturates", "requests of 400 spans", "of 20 spans", "for 1,000,000 spans/s"]
    found = {
        "One unit of each part": _table(head, rows),
        "The fleet at 1,000,000 spans a second": _table(
            ["part", "units", "busy (p50)", "busiest (p99)"], steady_rows(plan_for(units), costs)
        ),
    }
    if whole:
        head = [
            "away",
            "longest answer",
            "told to wait",
            "spilled spans",
            "in the stream",
            "seen within 10 s again",
            "lost",
        ]
        share = plan_for(units, SHARE)
        found["Something is away"] = _table(head, [trouble_row(trouble, share, costs) for trouble in TROUBLES])
    return found | {
        "What is kept": _table(["", "for each span", "in all"], kept_rows(costs)),
        "What an operation costs": _table(["operation", "measured"], cost_rows(costs))
        + f"\n\n{measured.machine}\n\n    {measured.command}",
    }


def tables(measured: Measured) -> str:
    """Everything the simulation says, as it stands in the page."""
    return "\n\n".join(f"### {heading}\n\n{text}" for heading, text in sections(measured, whole=True).items())


def kept_rows(costs: Costs) -> list[list[str]]:
    stream, stored = costs.message_bytes_of_span, costs.stored_bytes_of_span
    return [
        [
            "10 minutes of 1,000,000 spans/s in the stream, with one replica",
            f"{2 * stream:.0f} B",
            f"{2 * stream * 600 * TARGET / 1e9:.0f} GB",
        ],
        ["10,000,000,000 spans in ClickHouse", f"{stored:.0f} B", f"{stored * STORED / 1e12:.1f} TB"],
        [
            "what the link of the masters carries, in, out and to the replica",
            f"{3 * stream:.0f} B",
            f"{3 * stream * TARGET / 1e9:.2f} GB/s",
        ],
    ]


def cost_rows(costs: Costs) -> list[list[str]]:
    return [
        ["ingest, a request", f"{costs.ingest_request:.0f} µs"],
        ["ingest, a span", f"{costs.ingest_span:.2f} µs"],
        ["master, a message from append to acknowledgement", f"{costs.master_message:.0f} µs"],
        ["master, a kilobyte of it", f"{costs.master_kilobyte:.2f} µs"],
        ["until a replica confirms", f"{costs.replica_milliseconds:.2f} ms"],
        ["worker, a message", f"{costs.worker_message:.0f} µs"],
        ["worker, a span", f"{costs.worker_span:.2f} µs"],
        ["ClickHouse, an insert", f"{costs.store_insert / 1000:.1f} ms"],
        ["ClickHouse, a span in it", f"{costs.store_span:.2f} µs"],
        ["ClickHouse, merging a span once", f"{costs.merge_span:.2f} µs"],
        ["ClickHouse, a page of the list", f"{costs.list_read / 1000:.1f} ms"],
    ]


def written(page: str, text: str) -> str:
    """The page with these tables between its marks."""
    before, begin, rest = page.partition("<!-- simulated -->\n")
    _, end, after = rest.partition("<!-- end -->")
    if not begin or not end:
        raise ValueError("the page has no marks for the tables")
    return f"{before}{begin}\n{text}\n\n{end}{after}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] + ["--:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _percentiles(done: Sequence[tuple[float, float, int]]) -> list[str]:
    waited = sorted(seconds for _, seconds, _ in done)
    return [_seconds(waited[len(waited) // 2]), _seconds(waited[int(len(waited) * 0.99)])]


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"


def _percent(share: float) -> str:
    return f"{share:.0%}"


def _rate(rate: float) -> str:
    """Two digits: the rest is chance."""
    step = 10 ** (math.floor(math.log10(rate)) - 1)
    return f"{round(rate / step) * step:,.0f}/s"


def _count(number: int) -> str:
    return f"{number:,}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="put the tables into the page")
    parser.add_argument("--check", action="store_true", help="exit with 1 when the page says something else")
    chosen = parser.parse_args()
    text = tables(costs_of())
    if not chosen.write and not chosen.check:
        print(text)
        return 0
    page = PAGE.read_text()
    new = written(page, text)
    if chosen.write:
        PAGE.write_text(new)
    return int(chosen.check and new != page)


if __name__ == "__main__":
    sys.exit(main())
