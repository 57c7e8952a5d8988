"""Every exception that asynctrace raises, and where.

    AsynctraceError
    ├── ConfigurationError (ValueError)    an argument or an OTEL_* variable that cannot work; raised at start
    ├── MisuseError (RuntimeError)         the API called in a way that could only dead-lock or mislead
    ├── DeliveryError                      delivery cannot say what became of the spans
    │   ├── DeliveryTimeout (TimeoutError) a deadline passed; carries the receipt of that moment
    │   └── SpansLost                      `Receipt.raise_for_loss()`; carries the receipt
    ├── JournalError                       a journal or its directory that cannot be used; a tracer falls back to memory
    │   ├── JournalDamaged                 bytes that cannot be what was written
    │   └── JournalFromNewerVersion        written by a newer asynctrace; left alone
    └── WireError (ValueError)             bytes that are no OTLP

A wrong *type* raises the builtin `TypeError` at the call that made it. Nothing else ever leaves this package
into user code: errors of a backend end in the receipt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._contracts import Receipt

__all__ = [
    "AsynctraceError",
    "ConfigurationError",
    "MisuseError",
    "DeliveryError",
    "DeliveryTimeout",
    "SpansLost",
    "JournalError",
    "JournalDamaged",
    "JournalFromNewerVersion",
    "WireError",
]


class AsynctraceError(Exception):
    """The root of the tree."""


class ConfigurationError(AsynctraceError, ValueError):
    """A setting that cannot work. The message names the setting and shows a correct one."""


class MisuseError(AsynctraceError, RuntimeError):
    """A call that could only dead-lock or mislead. The message shows the right call."""


class DeliveryError(AsynctraceError):
    """Delivery failed inside; the receipt tells what is known."""

    def __init__(self, message: str, receipt: Receipt) -> None:
        super().__init__(message)
        self.receipt = receipt


class DeliveryTimeout(DeliveryError, TimeoutError):
    """The deadline of `flush()` passed. Nothing is lost by it: the spans are still waiting."""


class SpansLost(DeliveryError):
    """Raised by `Receipt.raise_for_loss()`."""


class JournalError(AsynctraceError):
    """A journal, or the directory it should lie in, cannot be used. The message is a sentence that says why."""


class JournalDamaged(JournalError):
    """A file of a journal cannot be what was written. It costs what that file held, nothing else."""


class JournalFromNewerVersion(JournalError):
    """A journal that a newer asynctrace wrote: it is left as it is, for that version to deliver."""


class WireError(AsynctraceError, ValueError):
    """Bytes that do not follow the OTLP protobuf or JSON encoding."""
