"""Run by nox where nothing but the built wheel and its dependencies is installed: `python -I fresh_wheel.py`.

Not a pytest file: pytest is not there. It fails by an exception, and prints what it saw.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import sysconfig
from importlib.metadata import distribution
from pathlib import Path

import asynctrace
from asynctrace.exporters import MemoryExporter, OTLPExporter
from asynctrace.testing import FaultServer

FILES_THAT_MUST_BE_THERE = (
    "py.typed",
    "cli.py",
    "wire/__init__.py",
    "collector/__init__.py",
    "testing/__init__.py",
    "collector/page/static/app.js",
)


def check_files() -> None:
    package = Path(asynctrace.__file__).parent
    assert package.is_relative_to(sysconfig.get_path("purelib")), f"not the wheel's: {package}"
    missing = [name for name in FILES_THAT_MUST_BE_THERE if not (package / name).exists()]
    assert not missing, f"not in the wheel: {missing}"
    outside = {str(file).partition("/")[0] for file in distribution("asynctrace").files or ()}
    assert {name for name in outside if not name.startswith(("asynctrace", ".."))} == set(), outside


def check_version() -> None:
    told = {asynctrace.__version__, distribution("asynctrace").version}
    assert len(told) == 1, told
    assert "LICENSE" in "".join(map(str, distribution("asynctrace").files or ()))


async def check_delivery() -> asynctrace.Receipt:
    memory = MemoryExporter()
    async with FaultServer() as server:
        exporters = [OTLPExporter(server.url), memory]
        async with asynctrace.Tracer(service="fresh-wheel", exporters=exporters) as tracer:
            async with tracer.trace("run"), tracer.trace_component("component", type="tool"):
                pass
            receipt = await tracer.flush(timeout=30)
    assert receipt.complete, receipt
    assert (receipt.accepted, len(memory.spans)) == (2, 2), receipt
    return receipt


def check_command() -> str:
    command = [str(Path(sys.executable).parent / "asynctrace"), "demo"]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


if __name__ == "__main__":
    check_files()
    check_version()
    print(asyncio.run(check_delivery()))
    print(check_command())
    print(f"the wheel of asynctrace {asynctrace.__version__} works on Python {sys.version.split()[0]}")
