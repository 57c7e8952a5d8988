"""Runs at the start of every Python that has this folder on its PYTHONPATH: what such a program sends to Redis is looked at
too. See `watched_programs` in tests/stream/slots.py."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

if report := os.environ.get("SLOTS_REPORT"):
    spec = importlib.util.spec_from_file_location("slots_of_this_program", Path(__file__).parents[1] / "slots.py")
    assert spec is not None
    assert spec.loader is not None
    slots = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = slots
    spec.loader.exec_module(slots)
    slots.report_to(Path(report))
