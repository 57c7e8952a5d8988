"""Run one of the programs with a look at every command that it sends to Redis: `started.py FILE ingest …`.

What must not be sent is written to FILE at once, so that a process that is killed has told it.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

SLOTS = Path(__file__).parents[2] / "stream" / "slots.py"


class Told(list[str]):
    """What was wrong, in a file."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self._path = path

    def append(self, violation: str) -> None:
        with open(self._path, "a") as file:
            file.write(f"{violation}\n")

    def extend(self, violations: Any) -> None:
        for each in violations:
            self.append(each)

    def __iadd__(self, violations: Any) -> Told:  # type: ignore[misc]
        self.extend(violations)
        return self


def main() -> int:
    spec = importlib.util.spec_from_file_location("slots", SLOTS)
    assert spec is not None
    assert spec.loader is not None
    slots = importlib.util.module_from_spec(spec)
    sys.modules["slots"] = slots
    spec.loader.exec_module(slots)
    from asynctrace.cli import main as run

    with slots.checked() as found:
        found.violations = Told(sys.argv[1])
        return run(sys.argv[2:])


if __name__ == "__main__":
    sys.exit(main())
