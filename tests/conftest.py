"""Rules for every test: asyncio only, a state directory of its own, the long form only when it is asked for, and tests that
show that a check notices are marked."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import HealthCheck, settings

from . import mutants
from .patience import no_patience

# How quickly examples are made, and how many are too large to be used, says something about the machine and the draw.
settings.register_profile(
    "steady", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)
settings.load_profile("steady")

# The shell ignores both for what it starts in the background. The programs that tests interrupt would inherit it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGQUIT) is signal.SIG_IGN:
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def diagnostics_on_stderr() -> Iterator[None]:
    """No test finds structlog as another one left it, `capture_logs()` for example: configured, and so no longer ours."""
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()


@pytest.fixture(autouse=True)
def state_directory(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test finds the journals that another one left, and none leaves any in the home of whoever runs them."""
    path = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("ASYNCTRACE_STATE_DIR", str(path))
    return path


@pytest.fixture(autouse=True)
def patience(request: pytest.FixtureRequest) -> Iterator[None]:
    """Deadlines are long, but where one is expected to pass."""
    if request.node.get_closest_marker(mutants.MARKER) is None:
        yield
    else:
        with no_patience():
            yield


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The long form of a test, minutes of work, runs only when it is asked for by `-m long`."""
    mutants.mark(items)
    if "long" in config.option.markexpr:
        return
    not_asked_for = pytest.mark.skip(reason="long form: run with -m long")
    for item in items:
        if item.get_closest_marker("long") is not None:
            item.add_marker(not_asked_for)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """After `-m mutants`: what was broken, and whether it was noticed."""
    if config.option.markexpr != mutants.MARKER:
        return
    reports = [(outcome, report) for outcome in ("passed", "failed") for report in terminalreporter.getreports(outcome)]
    names = {"passed": "noticed", "failed": "failed"}
    found = [(report.nodeid, names[outcome]) for outcome, report in reports if report.when == "call"]
    terminalreporter.section(f"{len(found)} mutants")
    for line in mutants.table(found):
        terminalreporter.line(line)
