"""The tables of a ClickHouse store, and how they came to be: numbered migrations.

What is inserted goes into two tables that keep nothing (`spans_in`, `logs_in`); materialized views fan it out

    spans_in ─┬▶ spans      one row for each span: what lists, filters and sums need
              ├▶ span_io    its OTLP message
              ├▶ arrivals   when it first came: its place in its trace, and whether it was late
              ├▶ roots      one row for each trace and insert, by start: the list
              ├▶ trace_ts   one row for each trace: which minutes its spans are in, and its id in order
              ├▶ minutes    one row for each minute in which spans start: when something of it last came
              └▶ origins    resources and scopes, once for each insert
    logs_in  ─┬▶ logs
              └▶ origins

and beside them: `requests` (the keys that came), `pins`, `roll` (percentiles by minute, made from `spans` where nothing
came for a while), `migrations`.

Columns that mean the same everywhere

    arrived     nanoseconds since the Unix epoch, by the clock of the writer: no two rows of a writer have the same, and they
                ascend in the order of the rows, so the least of a span is its place in the order of first arrival
    version     which version of a span is the heavier: class (0 open, 1 lost, 2 ended) · end · arrived, in 2, 63 and 63 bits.
                Merging keeps the heaviest; until then all are there, and who reads takes `argMax(…, version)` by
                (trace_id, span_id)
    minute      of the start, since the epoch. `spans` and `span_io` are sorted by it first; `trace_ts` says which of them a
                trace has
    tokens      search tokens (`_rows.token()`), their eight bytes as a little-endian number. Those of a resource stand in
                `origins` only
    kept        1 for a copy that a pin made, in a partition that retention passes over

Everything is partitioned by the day of arrival (UTC) and `kept`, so an insert is one part in each table, seen as a whole or
not at all, and retention drops partitions. A `parent_id` of zeros says root.

Promises

- Every statement may run twice: several processes that start at once, or one that died half way, leave the same tables.
- A database of a newer version is refused with a `StoreError`, and left as it is.
"""

from __future__ import annotations

from typing import Final

__all__ = ["DEDUPLICATION_WINDOW", "MIGRATIONS", "PARTITIONED", "VERSION", "Migration"]

DEDUPLICATION_WINDOW: Final = 10_000
"""Inserts of which each table remembers the token: 64 workers with an insert every two seconds each fill it in five minutes.
What comes again later is one with what is there by its ids."""
KEYS_KEPT: Final = 7 * 24 * 3600
"""Seconds that the key of a request is kept, as the embedded store does."""

PARTITIONED: Final = ("spans", "span_io", "arrivals", "roots", "trace_ts", "origins", "logs")
"""Tables of which retention drops partitions, and of which a pin copies rows."""

Migration = tuple[str, ...]
"""Statements, each for itself idempotent."""

_DAY: Final = "toYYYYMMDD(toDateTime(intDiv(arrived, 1000000000), 'UTC'))"
_PARTS: Final = f"PARTITION BY (kept, {_DAY})"
_WINDOW: Final = f"non_replicated_deduplication_window = {DEDUPLICATION_WINDOW}"
_SETTINGS: Final = f"SETTINGS {_WINDOW}"
_NUMBER: Final = "CODEC(Delta, ZSTD(1))"
_TEXT: Final = "CODEC(ZSTD(1))"

_FACTS: Final = f"""
    name LowCardinality(String), kind Int32, status Int32, ending LowCardinality(String), type LowCardinality(String),
    service LowCardinality(String), model LowCardinality(String),
    session String {_TEXT}, user String {_TEXT}, input String {_TEXT}, output String {_TEXT},
    input_tokens Int64 {_TEXT}, output_tokens Int64 {_TEXT}, cost Float64 {_TEXT},
    events UInt32 {_TEXT}, links UInt32 {_TEXT}, dropped Int64 {_TEXT}
"""
_FACT_NAMES: Final = (
    "name, kind, status, ending, type, service, model, session, user, input, output, "
    "input_tokens, output_tokens, cost, events, links, dropped"
)
_VERSION: Final = """
    bitShiftLeft(toUInt128(multiIf(end_ns = 0, 0, ending = 'lost', 1, 2)), 126)
    + bitShiftLeft(toUInt128(least(end_ns, 9223372036854775807)), 63) + arrived AS version
"""
_MINUTE: Final = "toUInt32(intDiv(start_ns, 60000000000)) AS minute"

SPANS_IN: Final = """
CREATE TABLE IF NOT EXISTS spans_in (
    trace_id FixedString(16), span_id FixedString(8), parent_id FixedString(8), arrived UInt64,
    start_ns UInt64, end_ns UInt64,
    name String, kind Int32, status Int32, ending String, type String, service String, model String,
    session String, user String, input String, output String, input_tokens Int64, output_tokens Int64, cost Float64,
    events UInt32, links UInt32, dropped Int64,
    tokens Array(UInt64), origin FixedString(16), resource String, scope String,
    resource_schema String, scope_schema String, origin_tokens Array(UInt64),
    is_new_origin UInt8, message String
) ENGINE = Null
"""
"""What an origin is stands where `is_new_origin` is 1, and is empty elsewhere; but for `service`."""

_BY_TEXT: Final = ", ".join(
    f"INDEX by_{column} lower({column}) TYPE bloom_filter(0.01) GRANULARITY 4"
    for column in ("name", "service", "type", "model", "session", "user")
)
"""For queries that name a whole text, in whatever case."""

SPANS: Final = f"""
CREATE TABLE IF NOT EXISTS spans (
    minute UInt32 {_NUMBER}, trace_id FixedString(16) {_TEXT}, span_id FixedString(8) {_TEXT},
    parent_id FixedString(8) {_TEXT}, arrived UInt64 {_NUMBER}, version UInt128 {_TEXT},
    start_ns UInt64 {_NUMBER}, end_ns UInt64 {_NUMBER}, {_FACTS}, tokens Array(UInt64) {_TEXT},
    origin FixedString(16) {_TEXT}, kept UInt8 DEFAULT 0,
    INDEX by_token tokens TYPE bloom_filter(0.01) GRANULARITY 4, {_BY_TEXT}
) ENGINE = ReplacingMergeTree(version) {_PARTS}
PRIMARY KEY (minute, xxHash32(trace_id)) ORDER BY (minute, xxHash32(trace_id), trace_id, span_id) {_SETTINGS}
"""
SPANS_VIEW: Final = f"""
CREATE MATERIALIZED VIEW IF NOT EXISTS spans_view TO spans AS
SELECT {_MINUTE}, trace_id, span_id, parent_id, arrived, {_VERSION}, start_ns, end_ns, {_FACT_NAMES}, tokens, origin
FROM spans_in
"""  # noqa: S608

SPAN_IO: Final = f"""
CREATE TABLE IF NOT EXISTS span_io (
    minute UInt32 {_NUMBER}, trace_id FixedString(16) {_TEXT}, span_id FixedString(8) {_TEXT}, arrived UInt64 {_NUMBER},
    version UInt128 {_TEXT}, message String {_TEXT}, kept UInt8 DEFAULT 0
) ENGINE = ReplacingMergeTree(version) {_PARTS}
PRIMARY KEY (minute, xxHash32(trace_id)) ORDER BY (minute, xxHash32(trace_id), trace_id, span_id)
SETTINGS index_granularity = 1024, {_WINDOW}
"""
SPAN_IO_VIEW: Final = f"""
CREATE MATERIALIZED VIEW IF NOT EXISTS span_io_view TO span_io AS
SELECT {_MINUTE}, trace_id, span_id, arrived, {_VERSION}, message FROM spans_in
"""  # noqa: S608

ARRIVALS: Final = f"""
CREATE TABLE IF NOT EXISTS arrivals (
    trace_id FixedString(16) {_TEXT}, span_id FixedString(8) {_TEXT},
    arrived SimpleAggregateFunction(min, UInt64) {_NUMBER}, is_root SimpleAggregateFunction(max, UInt8),
    kept UInt8 DEFAULT 0
) ENGINE = AggregatingMergeTree {_PARTS} PRIMARY KEY trace_id ORDER BY (trace_id, span_id)
SETTINGS index_granularity = 512, {_WINDOW}
"""
ARRIVALS_VIEW: Final = """
CREATE MATERIALIZED VIEW IF NOT EXISTS arrivals_view TO arrivals AS
SELECT trace_id, span_id, arrived, toUInt8(parent_id = toFixedString('', 8)) AS is_root FROM spans_in
"""

ROOTS: Final = f"""
CREATE TABLE IF NOT EXISTS roots (
    start_ns UInt64 {_NUMBER}, trace_id FixedString(16) {_TEXT}, end_ns UInt64 {_NUMBER}, arrived UInt64 {_NUMBER},
    spans UInt32, errors UInt32, open UInt32, has_root UInt8,
    name LowCardinality(String), service LowCardinality(String), session String {_TEXT}, user String {_TEXT},
    kept UInt8 DEFAULT 0
) ENGINE = MergeTree {_PARTS} ORDER BY (start_ns, trace_id) SETTINGS index_granularity = 1024, {_WINDOW}
"""
"""What this insert brought of the trace; the name and the service of the earliest root in it, or of its earliest span."""
ROOTS_VIEW: Final = """
CREATE MATERIALIZED VIEW IF NOT EXISTS roots_view TO roots AS
SELECT
    min(i.start_ns) AS start_ns, i.trace_id AS trace_id, max(i.end_ns) AS end_ns, max(i.arrived) AS arrived,
    toUInt32(count()) AS spans, toUInt32(countIf(i.status = 2)) AS errors, toUInt32(countIf(i.end_ns = 0)) AS open,
    toUInt8(max(i.parent_id = toFixedString('', 8))) AS has_root,
    argMin(i.name, (i.parent_id != toFixedString('', 8), i.start_ns)) AS name,
    argMin(i.service, (i.parent_id != toFixedString('', 8), i.start_ns)) AS service,
    argMinIf(i.session, i.arrived, i.session != '') AS session, argMinIf(i.user, i.arrived, i.user != '') AS user
FROM spans_in AS i GROUP BY i.trace_id
"""

TRACE_TS: Final = f"""
CREATE TABLE IF NOT EXISTS trace_ts (
    trace_id FixedString(16) {_TEXT}, start_ns SimpleAggregateFunction(min, UInt64) {_NUMBER},
    last_start_ns SimpleAggregateFunction(max, UInt64) {_NUMBER}, end_ns SimpleAggregateFunction(max, UInt64) {_NUMBER},
    arrived SimpleAggregateFunction(max, UInt64) {_NUMBER}, kept UInt8 DEFAULT 0
) ENGINE = AggregatingMergeTree {_PARTS} ORDER BY trace_id SETTINGS index_granularity = 256, {_WINDOW}
"""
TRACE_TS_VIEW: Final = """
CREATE MATERIALIZED VIEW IF NOT EXISTS trace_ts_view TO trace_ts AS
SELECT
    i.trace_id AS trace_id, min(i.start_ns) AS start_ns, max(i.start_ns) AS last_start_ns, max(i.end_ns) AS end_ns,
    max(i.arrived) AS arrived
FROM spans_in AS i GROUP BY i.trace_id
"""

MINUTES: Final = f"""
CREATE TABLE IF NOT EXISTS minutes (
    minute UInt32, arrived SimpleAggregateFunction(max, UInt64), rolled SimpleAggregateFunction(max, UInt64)
) ENGINE = AggregatingMergeTree ORDER BY minute {_SETTINGS}
"""
"""`roll` says all about a minute whose `rolled` is not less than `arrived`, in its rows with that `rolled`."""
MINUTES_VIEW: Final = """
CREATE MATERIALIZED VIEW IF NOT EXISTS minutes_view TO minutes AS
SELECT toUInt32(intDiv(i.start_ns, 60000000000)) AS minute, max(i.arrived) AS arrived, toUInt64(0) AS rolled
FROM spans_in AS i GROUP BY minute
"""
ROLL: Final = """
CREATE TABLE IF NOT EXISTS roll (
    minute UInt32, name LowCardinality(String), service LowCardinality(String), type LowCardinality(String),
    model LowCardinality(String), rolled UInt64, count UInt64, errors UInt64, input_tokens Int64, output_tokens Int64,
    cost Float64, buckets Map(Int32, UInt64)
) ENGINE = ReplacingMergeTree(rolled) ORDER BY (minute, name, service, type, model)
"""
"""`buckets`: how many spans have a duration in which bucket (those of the embedded store; -1 without an end)."""

ORIGINS: Final = f"""
CREATE TABLE IF NOT EXISTS origins (
    origin FixedString(16), service LowCardinality(String), resource String {_TEXT}, scope String {_TEXT},
    resource_schema LowCardinality(String), scope_schema LowCardinality(String),
    tokens Array(UInt64) {_TEXT}, arrived UInt64, kept UInt8 DEFAULT 0
) ENGINE = ReplacingMergeTree(arrived) {_PARTS} ORDER BY origin {_SETTINGS}
"""
ORIGINS_VIEW: Final = """
CREATE MATERIALIZED VIEW IF NOT EXISTS origins_view TO origins AS
SELECT origin, service, resource, scope, resource_schema, scope_schema, origin_tokens AS tokens, arrived
FROM spans_in WHERE is_new_origin
"""

LOGS_IN: Final = """
CREATE TABLE IF NOT EXISTS logs_in (
    trace_id FixedString(16), span_id FixedString(8), arrived UInt64, time_ns UInt64, severity Int32,
    origin FixedString(16), service String, resource String, scope String,
    resource_schema String, scope_schema String, origin_tokens Array(UInt64),
    is_new_origin UInt8, message String
) ENGINE = Null
"""
LOGS: Final = f"""
CREATE TABLE IF NOT EXISTS logs (
    trace_id FixedString(16) {_TEXT}, time_ns UInt64 {_NUMBER}, span_id FixedString(8) {_TEXT}, digest UInt128 {_TEXT},
    arrived UInt64 {_NUMBER}, severity Int32, origin FixedString(16) {_TEXT}, message String {_TEXT},
    kept UInt8 DEFAULT 0
) ENGINE = ReplacingMergeTree(arrived) {_PARTS} ORDER BY (trace_id, time_ns, span_id, digest)
SETTINGS index_granularity = 1024, {_WINDOW}
"""
"""`digest` is of the message: a log record that came twice is one. A `span_id` of zeros says that it has none."""
LOGS_VIEW: Final = """
CREATE MATERIALIZED VIEW IF NOT EXISTS logs_view TO logs AS
SELECT trace_id, time_ns, span_id, reinterpretAsUInt128(sipHash128(message)) AS digest, arrived, severity,
    origin, message
FROM logs_in
"""
LOG_ORIGINS_VIEW: Final = """
CREATE MATERIALIZED VIEW IF NOT EXISTS log_origins_view TO origins AS
SELECT origin, service, resource, scope, resource_schema, scope_schema, origin_tokens AS tokens, arrived
FROM logs_in WHERE is_new_origin
"""

REQUESTS: Final = f"""
CREATE TABLE IF NOT EXISTS requests (log_id String, first UInt64, end UInt64, seen DateTime DEFAULT now())
ENGINE = ReplacingMergeTree PARTITION BY toYYYYMMDD(seen, 'UTC') ORDER BY (log_id, first, end)
TTL seen + INTERVAL {KEYS_KEPT} SECOND SETTINGS ttl_only_drop_parts = 1, {_WINDOW}
"""
PINS: Final = """
CREATE TABLE IF NOT EXISTS pins (trace_id FixedString(16), is_pinned UInt8, changed UInt64)
ENGINE = ReplacingMergeTree(changed) ORDER BY trace_id
"""

TABLES_FIRST: Final[Migration] = (
    *(SPANS_IN, SPANS, SPAN_IO, ARRIVALS, ROOTS, TRACE_TS, MINUTES, ROLL, ORIGINS, LOGS_IN, LOGS, REQUESTS, PINS),
    *(SPANS_VIEW, SPAN_IO_VIEW, ARRIVALS_VIEW, ROOTS_VIEW, TRACE_TS_VIEW, MINUTES_VIEW, ORIGINS_VIEW),
    *(LOGS_VIEW, LOG_ORIGINS_VIEW),
)
"""The tables before the views: nothing is inserted before the views are there."""

MIGRATIONS: Final[tuple[Migration, ...]] = (TABLES_FIRST,)
VERSION: Final = len(MIGRATIONS)
