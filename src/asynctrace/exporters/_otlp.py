"""Spans over HTTP to any OpenTelemetry collector or backend.

The body of a request is the batch's own slices under one header: nothing is encoded again. Only where records name
scopes of their own is each one looked at, and put below its scope. Each `export()` is
one request; what the answer means stands in `_answers`, what can go wrong on the way in `_transport`.

Promises: constructing does not load aiohttp; one session for each event loop, made in it; a repeated batch
has the same `x-asynctrace-key`; no message and no `repr` shows a credential; the requests are nobody's spans.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Literal

import msgspec

from .._contracts import Batch, Clock, ExportResult, Outcome
from ._answers import result_of
from ._aside import loading, run_aside
from ._endpoint import checked_ca_file, checked_encoding, checked_settings, without_secrets
from ._packing import compressed, protobuf_request
from ._slices import Slices
from ._suppression import own_traffic

if TYPE_CHECKING:
    from ._transport import Body, Transport

__all__ = ["OTLPExporter", "OTLPStatistics"]

_OF_ONE_PROCESS: Final = {
    "_clock",
    "_transport",
    "_requests",
    "_sent_bytes",
    "_by_reason",
    "_told",
    "_slices",
    "takes_open_spans",
}

OPEN_SPANS: Final = "x-asynctrace-open-spans"
"""The header of an answer that says, with `1`: notices of open spans are welcome here."""

KEY_HEADER: Final = "x-asynctrace-key"

CONTENT_TYPES: Final = {"protobuf": "application/x-protobuf", "json": "application/json"}


class OTLPStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """What one exporter did so far."""

    requests: int
    """Batches sent, repetitions included."""
    sent_bytes: int
    """Bytes of their bodies, compressed."""
    by_reason: dict[str, int]
    """Answers that were no plain acceptance, by reason: "http_503", "connect_error", "backend_rejected", …"""


class OTLPExporter:
    """Sends to an OTLP/HTTP endpoint.

        OTLPExporter("https://otel.example.org", headers={"x-api-key": key}, compression="gzip")

    `endpoint`: a URL without a path gets `/v1/traces`, one with a path is used as it is; user name and
    password in it become an `Authorization` header. `timeout`: seconds for one request, from connecting to
    the last byte of the answer. `encoding="json"` decodes and encodes every span again. `ca_file`:
    certificates in PEM form, trusted instead of the system's. `clock`: asked only for a `Retry-After` date
    in an answer without `Date`.

    What is `None` is filled in by the tracer from the `OTEL_EXPORTER_OTLP_*` variables (see `with_defaults`),
    else http://127.0.0.1:4318, no headers, 10 seconds, no compression. `compression="none"` says no whatever
    the environment says. Raises `ConfigurationError`, naming the setting, when something cannot work.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        compression: Literal["gzip", "zstd", "none"] | None = None,
        encoding: Literal["protobuf", "json"] = "protobuf",
        ca_file: str | os.PathLike[str] | None = None,
        name: str = "otlp",
        clock: Clock | None = None,
    ) -> None:
        self._name = name
        self._settings = checked_settings(endpoint, headers, timeout, compression)
        self._given = (endpoint, dict(headers) if headers is not None else None, timeout, compression)
        self._encoding = checked_encoding(encoding)
        self._ca_file = checked_ca_file(ca_file)
        self._begin(clock)

    def _begin(self, clock: Clock | None) -> None:
        """What belongs to one process."""
        self._clock = clock
        self._transport: Transport | None = None
        self._requests = 0
        self._sent_bytes = 0
        self._by_reason: Counter[str] = Counter()
        self._told: set[str] = set()
        self._slices = Slices()
        self.takes_open_spans = False
        """Whether the latest answer to an export said so."""

    def __getstate__(self) -> dict[str, object]:
        """For another process: the settings, secrets included. Connections, counters and the clock stay here."""
        return {name: value for name, value in vars(self).items() if name not in _OF_ONE_PROCESS}

    def __setstate__(self, state: dict[str, object]) -> None:
        vars(self).update(state)
        self._begin(None)

    def with_defaults(
        self,
        *,
        endpoint: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        compression: str | None = None,
        clock: Clock | None = None,
    ) -> OTLPExporter:
        """Fill in what was `None` at construction, before the first export; returns the same exporter.

        What the constructor was given stays. Each call starts again from that, so defaults never pile up.
        """
        own_endpoint, own_headers, own_timeout, own_compression = self._given
        self._settings = checked_settings(
            endpoint if own_endpoint is None else own_endpoint,
            headers if own_headers is None else own_headers,
            timeout if own_timeout is None else own_timeout,
            compression if own_compression is None else own_compression,
        )
        self._clock = self._clock if self._clock is not None else clock
        return self

    @property
    def name(self) -> str:
        """The lane's name in the receipt."""
        return self._name

    @property
    def endpoint(self) -> str:
        """Scheme, host and port of where the spans go."""
        return self._settings.endpoint.origin

    def statistics(self) -> OTLPStatistics:
        """The counters at this moment."""
        return OTLPStatistics(requests=self._requests, sent_bytes=self._sent_bytes, by_reason=dict(self._by_reason))

    async def start(self) -> None:
        """Load aiohttp and the certificates, beside the loop. Wrong certificates are told by `export()`."""
        with contextlib.suppress(OSError):  # ssl.SSLError is one
            await self._made_transport()

    async def export(self, batch: Batch) -> ExportResult:
        """Send the batch in one request."""
        result, message = await self._attempt(batch)
        if result.outcome is not Outcome.SETTLED or result.rejected:
            self._by_reason[result.reason] += 1
        if message and result.reason not in self._told:
            self._told.add(result.reason)  # once for each reason: a backend that is away says so in every answer
            _log_message(self._name, result, message)
        return result

    async def export_open(self, batch: Batch) -> None:
        """Send notices of open spans, once: whatever becomes of them, nobody is told, and nothing is counted."""
        transport = await self._made_transport()
        body = await self._body(batch)
        headers = self._request_headers(batch)
        del headers[KEY_HEADER]  # they are no records of a log
        with own_traffic():
            answer = await transport.post(self._settings.endpoint.url, body, headers)
        self.takes_open_spans = answer.status < 300

    async def release(self) -> None:
        """Close the connections of the running event loop; another loop can go on."""
        if self._transport is not None:
            await self._transport.release()

    def after_fork_in_child(self) -> None:
        """The connections are the parent's: let go of them without a word to the far side."""
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.forget()

    async def aclose(self) -> None:
        """Close all connections. Idempotent, from any loop."""
        transport, self._transport = self._transport, None
        if transport is not None:
            await transport.aclose()

    def __repr__(self) -> str:
        return f"OTLPExporter({self.endpoint!r}, name={self._name!r})"

    # one request

    async def _attempt(self, batch: Batch) -> tuple[ExportResult, str]:
        try:
            transport = await self._made_transport()
        except OSError:  # no certificate in ca_file, or not readable
            return ExportResult.blocked("tls_error"), ""
        body = await self._body(batch)
        self._requests += 1
        self._sent_bytes += sum(map(len, body))
        return await self._post(transport, batch, body)

    async def _post(self, transport: Transport, batch: Batch, body: Body) -> tuple[ExportResult, str]:
        from ._transport import TransportFailure

        try:
            with own_traffic():
                answer = await transport.post(self._settings.endpoint.url, body, self._request_headers(batch))
        except TransportFailure as failure:
            if failure.reason == "tls_error":
                return ExportResult.blocked("tls_error"), ""
            return ExportResult.try_again(reason=failure.reason), ""
        if answer.status < 300:
            self.takes_open_spans = answer.headers.get(OPEN_SPANS) == "1"
        result, message = result_of(answer, batch.count, clock=self._clock)
        if result.detail:
            result = msgspec.structs.replace(result, detail=without_secrets(result.detail, self._settings))
        return result, message

    def _request_headers(self, batch: Batch) -> dict[str, str]:
        headers = {"Content-Type": CONTENT_TYPES[self._encoding], KEY_HEADER: batch.key}
        if self._settings.compression != "none":
            headers["Content-Encoding"] = self._settings.compression
        return headers

    async def _made_transport(self) -> Transport:
        """Importing aiohttp takes a tenth of a second or more, certificates some 20 ms: not on the loop."""
        if self._transport is None:
            is_quick = "aiohttp" in sys.modules and not self._settings.endpoint.is_tls
            made = self._new_transport() if is_quick else await run_aside(self._new_transport)
            self._transport = self._transport or made  # several requests may have begun at once
        return self._transport

    def _new_transport(self) -> Transport:
        with loading:
            from ._transport import Transport, ssl_context_of

            settings = self._settings
            headers = {"User-Agent": _user_agent(), "Accept-Encoding": "identity", **settings.headers}
            tls = ssl_context_of(self._ca_file) if settings.endpoint.is_tls else None
            return Transport(headers=headers, timeout=settings.timeout, tls=tls)

    # its body

    async def _body(self, batch: Batch) -> Body:
        """JSON is made in slices; compressing is done beside the loop."""
        if self._encoding == "json":
            parts: Body = [await self._slices.json_request(batch)]
        else:
            parts = await protobuf_request(batch, self._slices)
        if self._settings.compression == "none":
            return parts
        return [await compressed(parts, self._settings.compression)]


@functools.cache
def _user_agent() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"asynctrace/{version('asynctrace')}"
    except PackageNotFoundError:  # a source tree that is not installed
        return "asynctrace/0"


def _log_message(name: str, result: ExportResult, message: str) -> None:
    """What the far side wrote about a batch, for those who look: it may quote the spans."""
    with loading:
        import structlog

    if not structlog.is_configured():
        return  # an unconfigured structlog prints, to stdout, and a program's output is its own
    structlog.get_logger("asynctrace").debug(
        "exporters.answer", exporter=name, reason=result.reason, rejected=result.rejected, message=message
    )
