"""Servers at work: a worker that is reloaded, recycled, given up, or cut off, and what it needs of the program.

The endings are in tests/endings/test_servers_table.py, with the table.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import pytest

from asynctrace.testing import Accept, Delay, FaultServer, Hang

from .sites import CELERY, PATIENCE, RELOADING, UNPATIENT, WSGI, Site, is_alive, wait_for


def test_a_reload_loses_nothing_of_the_worker_before(tmp_path: Path) -> None:
    with FaultServer.in_thread(default=Delay(0.05)) as far_side:
        watched = tmp_path / "watched.py"
        watched.write_text("changed = False")
        site = Site(RELOADING, tmp_path, far_side)
        with site.started():
            with site.loaded():
                before = site.notes()
                watched.write_text("changed = True")
                site.wait_for_log("Application startup complete", 2)
                site.wait_for_all()
            with site.loaded(10):
                pass
            site.stop()
        workers = {pid for _, pid in site.notes().opened.values()}
        assert len(workers) == 2
        assert len({pid for _, pid in before.opened.values()}) == 1
        assert not site.recovered, site.log
        site.check_books()
        site.check_nothing_is_left()


def test_a_request_that_gunicorn_cuts_off_with_its_worker_is_lost_and_nothing_else(tmp_path: Path) -> None:
    """Without an option of uvicorn's own the worker waits until it is killed."""
    with FaultServer.in_thread() as far_side:
        site = Site(UNPATIENT, tmp_path, far_side, "--graceful-timeout=2")
        with site.started():
            with site.loaded():
                span, _ = site.ask_aside("hold")
            site.stop()
        with site.started():
            site.wait_for_all()
            site.stop()
        site.check_books()
        site.check_nothing_is_left()
        endings = site.endings()
        assert {ended for found, ended in endings.items() if found != span} == {"ok"}
        assert endings[span] == "lost"


def test_a_worker_that_is_given_up_while_it_flushes_leaves_its_journal_to_the_next(tmp_path: Path) -> None:
    with FaultServer.in_thread(default=Hang()) as far_side:
        site = Site(dataclasses.replace(WSGI, workers=1), tmp_path, far_side, "--timeout=3", "--workers=1")
        with site.started():
            site.ask("work")
            span, pid = site.ask_aside("flush")
            wait_for(lambda: not Path(f"/proc/{pid}").exists(), "the end of the worker", site)
            far_side.default = Accept()
            far_side.release()
            site.ask("work")
            site.wait_for_all()
            site.stop()
            assert site.recovered
        site.check_books()
        site.check_nothing_is_left()
        assert span in site.arrived()


def check_recycled_workers(folder: Path, patience: float = PATIENCE, **environment: str) -> None:
    """Each has one task, and ends by `os._exit()` a second later, which is sooner than the far side answers."""
    tasks = 3
    with FaultServer.in_thread(default=Delay(1.5)) as far_side:
        site = Site(CELERY, folder, far_side, "--max-tasks-per-child=1", **environment)
        site.patience = patience
        with site.started():
            for _ in range(tasks):
                site.ask("work")
            wait_for(lambda: len(site.notes().ended) == 3 * tasks, "every task", site)
            workers = Counter(pid for _, pid in site.notes().opened.values())
            assert set(workers.values()) == {3}, "a worker had more than one task"
            site.wait_for_all()
            wait_for(lambda: not any(map(is_alive, workers)), "the end of the workers", site)
            site.stop()
        site.check_books()
        assert not site.recovered, "a worker left it to another one"
        site.check_nothing_is_left()


def test_workers_of_celery_that_live_for_one_task_deliver_before_they_end(tmp_path: Path) -> None:
    check_recycled_workers(tmp_path)


def test_workers_of_celery_that_nobody_shuts_down_are_noticed(tmp_path: Path) -> None:
    fault = "from asynctrace.runtime import _fork\n_fork._deliver_at_the_end_of_celerys = lambda: None"
    with pytest.raises(AssertionError, match=r"every span|to another one"):
        check_recycled_workers(tmp_path, patience=8.0, FAULT=fault)
