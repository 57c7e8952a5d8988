"""What an HTTP answer means for a batch.

| answer | meaning |
|---|---|
| 2xx | taken over, but for what `partial_success` counts as rejected |
| 400, 422 | refused for the content: the lane halves the batch until the culprit is found |
| 413 | too large: the lane splits the batch |
| 408, 429, 5xx | later, not before `Retry-After` |
| any other | blocked: something must be set up differently; everything is kept |

Sources: OTLP 1.x, "OTLP/HTTP Response"; RFC 9110, 10.2.3 (`Retry-After`) and 6.6.1 (`Date`).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from .._contracts import Clock, ExportResult
from .._errors import WireError
from ..wire import decode_response, length_delimited

__all__ = ["MAX_ANSWER", "Answer", "result_of"]

MAX_ANSWER: Final = 64 * 1024
"""Bytes of an answer that are looked at: enough for any status message, no room for a bomb."""

MESSAGE_CHARACTERS: Final = 500
"""Of a far side's message: enough to name a field, too little for a page of HTML."""

LONGEST_WAIT: Final = 3600.0
"""Seconds. A backend that asks for more would be believed for ever if its clock were wrong."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of an HTTP response that count. `headers` looks names up in any case."""

    status: int
    headers: Mapping[str, str] = {}
    body: bytes = b""


def result_of(answer: Answer, count: int, *, clock: Clock | None = None) -> tuple[ExportResult, str]:
    """What to tell the lane about a batch of `count` records, and the far side's own message or `""`."""
    status = answer.status
    reason = f"http_{status}"
    if 200 <= status < 300:
        return _accepted(answer, count)
    if status in (400, 422):
        return ExportResult.refused(reason, _detail(status, _message(answer))), _text(answer)
    if status == 413:
        return ExportResult.too_large(reason, _detail(status, _message(answer))), _text(answer)
    after = _retry_after(answer.headers, clock)
    if status in (408, 429) or status >= 500:
        return ExportResult.try_again(after, reason), _text(answer)
    return ExportResult.blocked(reason, after), _text(answer)


def _text(answer: Answer) -> str:
    return answer.body[:MESSAGE_CHARACTERS].decode("utf-8", "replace")


def _detail(status: int, message: str) -> str:
    """The status line and the message, in one printable line; no headers."""
    from http import HTTPStatus

    known = {each.value: each.phrase for each in HTTPStatus}
    line = f"{status} {known.get(status, '')}".rstrip()
    return f"{line}: {_printable(message)}" if message else line


def _message(answer: Answer) -> str:
    """What the body says, in 500 characters. An OTLP error is a `google.rpc.Status`: a number, and the text in field 2,
    as it happens the same fields as those of a partial success."""
    kind = answer.headers.get("Content-Type", "").lower()
    try:
        body = _identity(answer)
        if "protobuf" in kind:
            return decode_response(length_delimited(b"\x0a", body))[1]
    except (WireError, zlib.error):
        return _text(answer)
    return body[: 4 * MESSAGE_CHARACTERS].decode("utf-8", "replace")


def _printable(text: str) -> str:
    return " ".join("".join(mark if mark.isprintable() else " " for mark in text[:MESSAGE_CHARACTERS]).split())


# ── partial success ─────────────────────────────────────────────────────────────────────────────────────────


def _accepted(answer: Answer, count: int) -> tuple[ExportResult, str]:
    rejected, message = _partial_success(answer)
    rejected = min(max(rejected, 0), count)
    reason = "backend_rejected" if rejected else ""
    detail = _detail(answer.status, message) if rejected else ""
    return ExportResult(accepted=count - rejected, rejected=rejected, reason=reason, detail=detail), message


def _partial_success(answer: Answer) -> tuple[int, str]:
    """Rejected spans and a message; (0, "") for whatever cannot be read: a 2xx took the batch over."""
    kind = answer.headers.get("Content-Type", "").lower()
    try:
        body = _identity(answer)
        if "json" in kind:
            return _partial_success_json(body)
        if "protobuf" in kind or not kind:
            return decode_response(body)
    except (WireError, ValueError, TypeError, AttributeError, zlib.error):
        return 0, ""
    return 0, ""


def _partial_success_json(body: bytes) -> tuple[int, str]:
    """64-bit integers come as text or as numbers (proto3 JSON mapping)."""
    response: Any = msgspec.json.decode(body) if body else {}
    partial = response.get("partialSuccess") or {}
    message = partial.get("errorMessage")
    rejected = int(partial.get("rejectedSpans") or 0)
    return rejected, message if isinstance(message, str) else ""


def _identity(answer: Answer) -> bytes:
    """The body, inflated when a server compresses although it was asked not to."""
    if answer.headers.get("Content-Encoding", "").lower() != "gzip":
        return answer.body
    return zlib.decompressobj(wbits=31).decompress(answer.body, MAX_ANSWER)


# ── Retry-After ─────────────────────────────────────────────────────────────────────────────────────────────


def _retry_after(headers: Mapping[str, str], clock: Clock | None) -> float | None:
    """Seconds from now, between 0 and `LONGEST_WAIT`; `None` when not given or not readable."""
    value = headers.get("Retry-After", "").strip()
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        return _seconds_until(value, headers, clock)
    return min(max(seconds, 0.0), LONGEST_WAIT) if seconds == seconds else None


def _seconds_until(date: str, headers: Mapping[str, str], clock: Clock | None) -> float | None:
    """Counted from the answer's own `Date`: both were written by one clock, which may not agree with ours."""
    then, now = _timestamp(date), _timestamp(headers.get("Date", ""))
    if now is None and clock is not None:
        now = clock.time_ns() / 1e9
    if then is None or now is None:
        return None
    return min(max(then - now, 0.0), LONGEST_WAIT)


def _timestamp(date: str) -> float | None:
    from email.utils import parsedate_tz

    parsed = parsedate_tz(date)
    if parsed is None:
        return None
    from email.utils import mktime_tz

    try:
        return float(mktime_tz(parsed))
    except (ValueError, OverflowError):
        return None
