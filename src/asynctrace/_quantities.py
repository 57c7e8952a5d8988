"""Sizes and ages as people write them: `500MB`, `12h`, `none`."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["NEVER", "read_age", "read_size"]

SIZES: Final = {"KB": 1000, "MB": 1000**2, "GB": 1000**3, "TB": 1000**4}
AGES: Final = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
NEVER: Final = "none"


def read_size(text: str) -> int | None:
    """Bytes; None for `none`. `ValueError`."""
    return _measured(text, SIZES, "500MB or 20GB")


def read_age(text: str) -> int | None:
    """Seconds; None for `none`. `ValueError`."""
    return _measured(text, AGES, "12h or 30d")


def _measured(text: str, units: dict[str, int], example: str) -> int | None:
    if text.lower() == NEVER:
        return None
    found = re.fullmatch(r"(\d{1,12})\s*([A-Za-z]+)", text, re.ASCII)
    unit = next((size for name, size in units.items() if found and name.lower() == found[2].lower()), None)
    if found is None or unit is None or not int(found[1]):
        raise ValueError(f"write {example}, or {NEVER}, not {text!r}")
    return int(found[1]) * unit
