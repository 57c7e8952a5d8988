"""Span ids that say who made the span: slot, life, and its number in that life."""

from __future__ import annotations

__all__ = ["LIVES", "number_of", "place_of", "span_at"]

LIVES = 1000
"""Processes that one slot may have, one after the other."""


def number_of(slot: int, life: int, number: int) -> int:
    """Never 0, and below 2**63."""
    return (slot + 1) << 56 | life << 40 | (number + 1)


def place_of(span_id: int, most: int) -> int:
    """The byte of the oracle page that belongs to a span, where a life has at most `most` spans."""
    slot, life, number = (span_id >> 56) - 1, (span_id >> 40) & 0xFFFF, (span_id & 0xFFFFFFFFFF) - 1
    if not (0 <= number < most and 0 <= life < LIVES):
        raise ValueError(f"{span_id:#x} has no place")
    return (slot * LIVES + life) * most + number


def span_at(place: int, most: int) -> int:
    """The other way round."""
    place, number = divmod(place, most)
    slot, life = divmod(place, LIVES)
    return number_of(slot, life, number)
