"""The tracer of the programs under test, configured where a program is imported; and what a test breaks on purpose."""

from __future__ import annotations

import os
import sys

import structlog

import asynctrace
from asynctrace.exporters import OTLPExporter

structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # shows what was recovered

exec(os.environ.get("FAULT", ""))

asynctrace.configure(
    service="shop",
    exporters=[OTLPExporter(os.environ["FAR_SIDE"])],
    shutdown_timeout=float(os.environ.get("SHUTDOWN_TIMEOUT", "10")),
    journal=os.environ.get("JOURNAL", "on") == "on",
)
