"""How lanes batch, retry and wait."""

from __future__ import annotations

import msgspec

from .._errors import ConfigurationError

__all__ = ["DeliveryOptions"]


class DeliveryOptions(msgspec.Struct, frozen=True, kw_only=True):
    """The same for every lane of a tracer. Durations are seconds.

        DeliveryOptions(linger=0.2, max_in_flight=8)

    Raises `ConfigurationError`, naming the field, for a value that cannot work.
    """

    batch_spans: int = 512
    """So many waiting spans are sent at once. The number doubles up to `batch_spans_most` while spans come faster than they
    leave, because the far side is slow or the event loop is late, and falls back as soon as they do not."""
    batch_spans_most: int = 8192
    """The largest number of spans in one batch, reached while spans come faster than answers."""
    batch_bytes: int = 512 * 1024
    """Bytes of one batch; one larger span still travels alone."""
    linger: float = 1.0
    """How long the oldest waiting span waits for others to join its batch; on an event loop that runs late, and while a
    request is under way, four times as long."""
    max_in_flight: int = 4
    """Requests of one lane under way at once; they are acknowledged in order. After a failure, and on a loop that runs
    late unless batches are full, one."""
    backoff_initial: float = 1.0
    """The first back-off is drawn between 0 and this, each further one between 0 and twice the last bound. A far side that
    usually takes longer for an answer gets as long as that."""
    backoff_max: float = 30.0
    """The largest bound of a back-off. There is no limit on attempts: the bound of the span log decides."""
    blocked_interval: float = 30.0
    """How often a lane that is blocked by configuration (401, 403, 404, TLS) tries again; `flush()` tries at once."""
    export_timeout: float = 30.0
    """After so long an `export()` that has not answered is cancelled and counts as "try again"."""
    longest_retry_after: float = 600.0
    """A larger `Retry-After` is taken for this."""

    def __post_init__(self) -> None:
        for field in ("batch_spans", "batch_spans_most", "batch_bytes", "max_in_flight"):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigurationError(f"DeliveryOptions({field}=…) is a whole number from 1 on, not {value!r}")
        for field in (
            "linger",
            "backoff_initial",
            "backoff_max",
            "blocked_interval",
            "export_timeout",
            "longest_retry_after",
        ):
            value = getattr(self, field)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
                raise ConfigurationError(f"DeliveryOptions({field}=…) is a number of seconds, not {value!r}")
