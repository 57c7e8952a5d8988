"""Texts that are too long: cut to size, with a marker that says how long they were and what they hash to.

- A text is masked before it is cut, on a window of 4 KiB beyond the cut; what comes out never reaches into
  the last 4 KiB of that window. So a secret that lies across the cut is seen whole by the patterns, and a
  secret cut by the window's own end is dropped with it.
- The hash is of the original. Up to 1 MiB it is the whole text's SHA-256; above, `sha256-sampled`: SHA-256
  over the first and last 64 KiB and the length, because hashing 50 MB would hold the event loop for 50 ms.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256

from ._masking import MASKED, MASKER_FAILED

__all__ = [
    "SAMPLE",
    "SLACK",
    "cut_bytes_text",
    "cut_text",
    "cut_window",
    "fit_utf8",
    "sampled",
    "fingerprint",
    "text_marker",
]

SLACK = 4096
"""Characters behind the cut that the masker sees too: longer than any usual key or token."""

_WHOLE = 1024 * 1024
SAMPLE = 64 * 1024


def fingerprint(value: str | bytes, whole: int = _WHOLE) -> str:
    """`sha256 …` of an exact str (as UTF-8) or bytes up to `whole` units long, else `sha256-sampled …`."""
    length = len(value)
    if length <= whole:
        return f"sha256 {sha256(_raw(value)).hexdigest()}"
    return sampled(_raw(value[:SAMPLE]), _raw(value[-SAMPLE:]), length)


def sampled(head: bytes, tail: bytes, length: int) -> str:
    """`sha256-sampled …` of the first and last 64 Ki units and the length."""
    return f"sha256-sampled {sha256(b'%b%b%d' % (head, tail, length)).hexdigest()}"


def _raw(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")


def text_marker(length: int, unit: str, fingerprint: str) -> str:
    """What stands behind a cut text, or in place of bytes that are no text."""
    return f"[asynctrace: cut, {length} {unit}, {fingerprint}]"


def cut_text(text: str, limit: int, mask: Callable[[str], str], size: Callable[[str], int], print_: str) -> str:
    """An exact str that is too long, masked and cut with its marker, so that `size()` of it is at most
    `limit`."""
    return cut_window(text[: limit + SLACK], limit, mask, size, text_marker(len(text), "characters", print_))


def cut_bytes_text(
    value: bytes, limit: int, mask: Callable[[str], str], size: Callable[[str], int], print_: str
) -> str:
    """`cut_text()` for bytes that are UTF-8 as far as can be seen; raises `UnicodeDecodeError` where not."""
    head = value[: limit + SLACK]
    return cut_window(_decoded(head), limit, mask, size, text_marker(len(value), "bytes", print_))


def _decoded(head: bytes) -> str:
    try:
        return head.decode()
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:  # else the window ends inside a character
            raise
        return head[: error.start].decode()


def cut_window(window: str, limit: int, mask: Callable[[str], str], size: Callable[[str], int], marker: str) -> str:
    """The start of a longer text, masked, then cut until `size()` of it and the marker is at most `limit`."""
    masked = mask(window)
    if masked in (MASKED, MASKER_FAILED):
        return masked
    room = limit - size(marker)
    if room <= 0:
        return marker
    kept = masked[: max(0, min(room, len(masked) - SLACK))]
    over = size(kept)
    while over > room:  # other than ASCII: cut in proportion, at least one character
        kept = kept[: min(len(kept) - 1, len(kept) * room // over)]
        over = size(kept)
    return kept + marker


def fit_utf8(text: str) -> str:
    """The text without lone surrogates: pairs are joined, the others become U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
