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
    ├── StreamError                        the stream between collectors cannot be used; one line that says what to do
    │   ├── StreamFull                     it has no room; carries the seconds to wait
    │   ├── StreamAway                     it cannot be reached; nothing is known of what was under way
    │   ├── MessageTooLarge (ValueError)   more than one message may have; nothing was sent
    │   └── MessageError (ValueError)      an entry that this version cannot read
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
    "StreamError",
    "StreamFull",
    "StreamAway",
    "MessageTooLarge",
    "MessageError",
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


class StreamError(AsynctraceError):
    """The stream between collectors cannot be used as it is set up. The message is one line that says what to change."""


class StreamFull(StreamError):
    """The stream has no room. Nothing was written; come again after `retry_after` seconds."""

    def __init__(self, message: str, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class StreamAway(StreamError):
    """The stream could not be reached within the deadline. What was under way may have been written."""


class MessageTooLarge(StreamError, ValueError):
    """A message that is larger than one may be. Nothing was sent: split it."""


class MessageError(StreamError, ValueError):
    """An entry of the stream that is no message, or one that this version may not read. The message says which."""


class WireError(AsynctraceError, ValueError):
    """Bytes that do not follow the OTLP protobuf or JSON encoding."""
