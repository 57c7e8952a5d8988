"""Baggage: a few texts under names that go along with a trace, to every service behind.

    userId=alice,serverNode=DF%2028;ttl=30,isProduction=false
    ▲ key  ▲ value      ▲ percent-encoded UTF-8  ▲ a property of the entry before it, handed on as it came

- A `Baggage` never changes: what sets an entry returns another one. It always fits: 64 entries, 8192 bytes of header.
- Read: what does not follow the grammar, or no longer fits, is left out, entry by entry, and counted; the rest stays. Of a
  key that comes twice the last entry counts. The work is bounded, whatever comes.
- Written: valid, and read back the same.

Source: https://www.w3.org/TR/baggage/, "Baggage HTTP Header Format"; RFC 9110, section 5.6.2, for the keys.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import quote, unquote

from .._errors import MisuseError

__all__ = ["MOST_BAGGAGE", "MOST_ENTRIES", "NO_BAGGAGE", "Baggage", "parse_baggage"]

MOST_BAGGAGE = 8192
"""Bytes of the header ("Limits")."""
MOST_ENTRIES = 64

_MOST_READ = 4 * MOST_BAGGAGE
"""Characters that are looked at: white space and entries that come again may take some."""

_UNENCODED = "!#$&'()*-./:<=>?@[]^_`{|}~"
"""`baggage-octet` but for letters, digits, `%`, and `+`, which OpenTelemetry for Python takes for a space."""

_TOKEN = re.compile(r"[!#-'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(r"[!#-+\--:<-\[\]-~]*")
_HALF = re.compile("[\ud800-\udfff]")


class _Entry(NamedTuple):
    value: str
    member: str
    """All of it as it stands in the header."""


class Baggage(Mapping[str, str]):
    """The values by their keys. `left_out` is how many entries were read that are not here.

    Made by `parse_baggage()`, and from one that is there: `NO_BAGGAGE` has no entry.
    """

    __slots__ = ("_entries", "left_out")

    def __init__(self, entries: Mapping[str, _Entry], left_out: int = 0) -> None:
        self._entries = entries
        self.left_out = left_out

    def __getitem__(self, key: str) -> str:
        return self._entries[key].value

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"Baggage({dict(self)!r})"

    def header(self) -> str:
        """The value of a `baggage` header; `""` where there is no entry."""
        return ",".join([entry.member for entry in self._entries.values()])

    def properties(self, key: str) -> tuple[str, ...]:
        """What an entry says beside its value, as it stands in the header: `("ttl=30", "local")`."""
        return tuple(self._entries[key].member.split(";")[1:])

    def with_entry(self, key: str, value: str) -> Baggage | None:
        """This one with `value` under `key`, without properties; None where it would be too large.

        Raises `MisuseError` for a key that no header may have.
        """
        if _TOKEN.fullmatch(key) is None:
            raise MisuseError(f"a key of baggage has letters, digits and !#$%&'*+-.^_`|~ only, not {key[:64]!r}")
        value = _HALF.sub("\ufffd", value)
        entries = {**self._entries, key: _Entry(value, f"{key}={quote(value, safe=_UNENCODED)}")}
        return Baggage(entries) if _fits(entries) else None

    def without(self, key: str) -> Baggage:
        """This one without `key`, whether it was there or not."""
        return Baggage({name: entry for name, entry in self._entries.items() if name != key}, self.left_out)

    def over(self, below: Baggage) -> Baggage:
        """Both: where they have the same key, this one's entry. As many of this one's, then of the other's, as fit."""
        if not (self._entries and below._entries):
            return self or below
        rest = [entry for entry in below._entries.items() if entry[0] not in self._entries]
        return _that_fit([*self._entries.items(), *rest], 0)

    def masked(self, mask: Callable[[str, str], str]) -> Baggage:
        """This one with what `mask(key, text)` makes of every value; a property that it changes is left out."""
        return self if not self._entries else _that_fit(list(_masked(self._entries, mask)), self.left_out)


NO_BAGGAGE = Baggage({})


def parse_baggage(values: Sequence[str]) -> Baggage:
    """The baggage of all headers of that name, in their order."""
    text = ",".join(values)
    if not text:
        return NO_BAGGAGE
    cut = len(text) > _MOST_READ
    members = text[:_MOST_READ].split(",")
    if cut:
        members.pop()  # it may have been longer
    read = [entry for member in members if (entry := _parse(member)) is not None]
    empty = sum(not member.strip(" \t") for member in members)
    return _that_fit(read, len(members) - empty - len(read) + cut)


def _parse(member: str) -> tuple[str, _Entry] | None:
    first, *rest = member.split(";")
    pair = _pair(first)
    if pair is None or pair[1] is None:
        return None
    properties = [text for part in rest if (text := _property(part))]
    key, value = pair
    return key, _Entry(unquote(value), ";".join([f"{key}={value}", *properties]))  # type: ignore[arg-type]  # seen above


def _property(text: str) -> str:
    """A property without white space; nothing for one that is invalid."""
    pair = _pair(text)
    if pair is None:
        return ""
    return pair[0] if pair[1] is None else f"{pair[0]}={pair[1]}"


def _pair(text: str) -> tuple[str, str | None] | None:
    key, equals, value = text.partition("=")
    key, value = key.strip(" \t"), value.strip(" \t")
    if _TOKEN.fullmatch(key) is None or _VALUE.fullmatch(value) is None:
        return None
    return key, value if equals else None


def _that_fit(read: Sequence[tuple[str, _Entry]], left_out: int) -> Baggage:
    """Of these the first ones that fit; a key's last entry stands where its first one stood."""
    entries = dict(read)
    if not _fits(entries):
        size, kept = -1, dict[str, _Entry]()
        for key, entry in entries.items():
            longer = size + 1 + len(entry.member)
            if len(kept) < MOST_ENTRIES and longer <= MOST_BAGGAGE:
                size, kept[key] = longer, entry
        left_out += len(entries) - len(kept)
        entries = kept
    return Baggage(entries, left_out)


def _fits(entries: Mapping[str, _Entry]) -> bool:
    if len(entries) > MOST_ENTRIES:
        return False
    return sum([len(entry.member) for entry in entries.values()]) + len(entries) - 1 <= MOST_BAGGAGE


def _masked(entries: Mapping[str, _Entry], mask: Callable[[str, str], str]) -> Iterator[tuple[str, _Entry]]:
    for key, entry in entries.items():
        value = _HALF.sub("\ufffd", mask(key, entry.value))
        first, *properties = entry.member.split(";")
        harmless = [text for text in properties if _is_harmless(text, mask)]
        if value == entry.value and harmless == properties:
            yield key, entry
            continue
        if value != entry.value:
            first = f"{key}={quote(value, safe=_UNENCODED)}"
        yield key, _Entry(value, ";".join([first, *harmless]))


def _is_harmless(text: str, mask: Callable[[str, str], str]) -> bool:
    key, _, value = text.partition("=")
    return mask(key, unquote(value)) == unquote(value)
