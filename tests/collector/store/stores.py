"""The stores that the promises are asked of. ClickHouse is one of them where its library is installed."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

from asynctrace._contracts import AttributeValue, Span, StatusCode
from asynctrace.collector import SQLiteStore, Store
from asynctrace.collector._rows import Received
from asynctrace.collector.query import parse

from ... import clickhouse_server
from ..traffic import group, received, span

Make = Callable[[Path], Store]

STORES: dict[str, Make] = {
    "sqlite": SQLiteStore,
    "sqlite, a segment for each commit": partial(SQLiteStore, segment_size=1),
    "sqlite without full text": partial(SQLiteStore, full_text=False, segment_size=700_000),
}


def clickhouse_store(directory: Path) -> Store:
    """In a database that belongs to `directory`."""
    from asynctrace.collector.clickhouse import ClickHouseStore

    return ClickHouseStore(clickhouse_server.shared().database(directory))


if clickhouse_server.is_installed():
    STORES["clickhouse"] = clickhouse_store


@contextlib.contextmanager
def opened(make: Make, directory: Path) -> Iterator[Store]:
    with contextlib.closing(make(directory)) as store:
        yield store


def run_of(
    trace: int, number: int = 1, /, *, at: int = 0, service: str = "shop", **attributes: AttributeValue
) -> Received:
    """A trace of one root span, `at` seconds after the others."""
    dotted = {key.replace("__", "."): value for key, value in attributes.items()}
    return received(group(span(trace, number, start=at * 10**9, attributes=dotted), service=service))


NAMES = ("agent.run", "chat gpt-x", "execute_tool search", "db.query")
ENDINGS = ("cancelled", "timeout", "lost")


def some_traces(seed: int, traces: int = 12, most_spans: int = 6) -> list[tuple[str, Span]]:
    """(service, span) of traces that differ in everything a query can ask for, in an order of arrival that mixes them."""
    rnd = random.Random(seed)
    made = [(_service(rnd), _span(rnd, trace, number)) for trace in range(1, traces + 1)
            for number in range(1, rnd.randint(1, most_spans) + 1)]  # fmt: skip
    rnd.shuffle(made)
    return made


def in_requests(spans: Sequence[tuple[str, Span]], size: int) -> Iterator[Received]:
    """In the order of arrival, `size` in a request."""
    for first in range(0, len(spans), size):
        yield received(*(group(each, service=service) for service, each in spans[first : first + size]))


def _service(rnd: random.Random) -> str:
    return rnd.choice(("shop", "bank"))


def _span(rnd: random.Random, trace: int, number: int) -> Span:
    attributes: dict[str, AttributeValue] = {
        "n": rnd.randint(0, 3),
        "Ratio": rnd.choice((0.5, 2.0)),
        "ok": rnd.random() < 0.5,
    }
    attributes["customer"] = rnd.choice(("Anna", "Björn", "x" * 150))
    attributes["tags"] = rnd.choice((["a", "b"], ["b", 3], []))
    if rnd.random() < 0.5:
        attributes["openinference.span.kind"] = rnd.choice(("LLM", "TOOL"))
        attributes["llm.model_name"] = rnd.choice(("gpt-x", "claude-y"))
        attributes["llm.token_count.prompt"] = rnd.randint(1, 900)
        attributes["input.value"] = rnd.choice(("Please refund order 12", "Größe?", '{"q": "tea"}'))
        attributes["output.value"] = rnd.choice(("Done.", "REFUNDED", "12"))
    if rnd.random() < 0.5:
        attributes["session.id"] = f"s{trace % 3}"
        attributes["user.id"] = f"u{trace % 2}"
    if rnd.random() < 0.2:
        attributes["asynctrace.ending"] = rnd.choice(ENDINGS)
    return span(
        trace,
        number,
        parent=0 if number == 1 else rnd.randint(1, number - 1),
        name=rnd.choice(NAMES),
        start=rnd.randint(0, 600) * 10**9,
        duration=rnd.choice((0, 5_000, 3_000_000, 2_500_000_000, 90_000_000_000)),
        status=rnd.choice((StatusCode.OK, StatusCode.UNSET, StatusCode.ERROR)),
        attributes=attributes,
    )


QUERIES = """
service:shop
service:SHOP
service:s*
-service:shop
chat
"agent run"
name:chat*
name:*search
name:nothing
name:CHAT*
attr.n=2
attr.n=2 attr.ok=true
attr.n=2 attr.n=3
attr.n>1
attr.Ratio=2.0
attr.Ratio=0.5 name:db.query
attr.ratio=0.5
attr.customer=anna
attr.customer=BJÖRN
attr.customer=XXX
attr.customer=a*
attr.customer=*
attr.missing=1
attr.missing=*
-attr.n=2
attr.tags=b
attr.tags=3
attr.service.name=bank
dur>2s
dur>2s dur<1m
dur<=5us
status:error
status:ok
status:unset
-status:error
status:error status:ok
ending:cancelled
ending:lost
ending:error
ending:open
is:open
is:ended
is:lost
is:error
is:root
is:pinned
-is:open
cost>0
tokens>500
tokens<=500
spans>3
errors>1
errors=0
session:s1
session:S1
session:s*
session:s1 user:u1
user:u0
kind:internal
kind:unspecified
-kind:server
type:llm
type:LLM model:gpt-x
type:l*
model:claude-y status:error
scope:tests
scope:other
input:refund
input:REFUND attr.n=1
output:refunded
output:12
text:12
text:größe
text:"order 12"
text:zzz
-text:refund
since:2023-11-14T22:15Z
until:2023-11-14T22:15Z
since:2023-11-14T22:15Z until:2023-11-14T22:20Z
id:0
id:00000000000000000000000000000003
id:f
name:chat* type:llm input:refund -status:error
attr.n=2 service:bank session:s1
""".replace("XXX", "x" * 150).split("\n")[:-1]
"""Each operator, alone and with others, what is there and what is not; the first is empty."""

PARSED = [parse(text) for text in QUERIES]
