"""A Celery application: all it knows of tracing is `configure()` and its spans."""

from __future__ import annotations

import os
import time

import configured  # noqa: F401
from broker import OPTIONS
from celery import Celery
from notes import noted

import asynctrace
from endings import leave

app = Celery("shop", broker="filesystem://")
app.conf.update(OPTIONS)


@app.task(name="work")
def work() -> None:
    with noted(asynctrace.trace("work")):
        for name in ("look_up", "answer"):
            with noted(asynctrace.trace_component(name)):
                pass


@app.task(name="hold")
def hold() -> None:
    with noted(asynctrace.trace("hold")):
        time.sleep(float(os.environ.get("HOLDS_FOR", "60")))


@app.task(name="end")
def end(how: str, group: str = "") -> None:
    with noted(asynctrace.trace("end")):
        leave(how, group)
