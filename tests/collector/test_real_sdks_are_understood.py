"""Programs that use the SDKs of others, each in a process of its own, and what the collector holds afterwards.

The programs are in `clients/`. Langfuse's and Logfire's SDKs are installed with the tests. AgentOps' wants an older
OpenTelemetry, and the ones for JavaScript want npm: they are installed once, below pytest's cache directory.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import anyio.to_thread
import msgspec
import pytest

from asynctrace._tree import render_tree
from asynctrace.collector import SQLiteReader

from .clients import model
from .test_payloads_of_real_sdks import MODELS as CALLS
from .traffic import Sender, collecting

CLIENTS = Path(__file__).parent / "clients"
DEADLINE = 120
"""Seconds that a program has."""

NPM_PACKAGES = [
    "@opentelemetry/api@1.9.1",
    "@opentelemetry/resources@2.12.0",
    "@opentelemetry/sdk-trace-node@2.12.0",
    "@opentelemetry/exporter-trace-otlp-http@0.223.1",
    "@opentelemetry/exporter-trace-otlp-proto@0.223.1",
    "@langfuse/otel@5.11.1",
    "@langfuse/tracing@5.11.1",
]
MODELS = [
    "openai>=3",
    "anthropic>=2",
    "langchain-openai>=1",
    "logfire>=5",
    "openinference-instrumentation-openai>=0.1.60",
    "openinference-instrumentation-anthropic>=3",
    "openinference-instrumentation-langchain>=0.1.80",
    "opentelemetry-exporter-otlp-proto-http>=1.45",
    "opentelemetry-instrumentation-openai-v2==2.4b0",
    "opentelemetry-util-genai<=1.1b0",
    "opentelemetry-instrumentation-openai>=0.62",
    "opentelemetry-instrumentation-anthropic>=0.62",
]
"""What `with_a_model.py` needs for all of its instrumentations."""
AGENTOPS = ["agentops==0.4.21", "opentelemetry-sdk==1.37.*", "opentelemetry-exporter-otlp-proto-http==1.37.*"]


def run(command: list[str], directory: Path, **environment: str) -> None:
    """In a directory of the test's: some SDKs leave files where they are."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "ASYNCTRACE_"))}
    finished = subprocess.run(
        command, capture_output=True, text=True, timeout=DEADLINE, env=clean | environment, cwd=directory, check=False
    )
    assert finished.returncode == 0, finished.stderr[-2000:]


def installed(distribution: str) -> None:
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{distribution} is not installed: it is in the dependency group `test`")


@pytest.fixture(scope="session")
def node_modules(pytestconfig: pytest.Config) -> Path:
    """A directory with the clients for JavaScript and what they need."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    return made_once(pytestconfig.cache.mkdir("npm") / "1", install_npm)  # type: ignore[union-attr]


def install_npm(directory: Path) -> None:
    for client in CLIENTS.glob("*.mjs"):
        shutil.copy(client, directory)
    command = [
        "npm",
        "install",
        "--no-audit",
        "--no-fund",
        "--ignore-scripts",
        "--prefix",
        str(directory),
        *NPM_PACKAGES,
    ]
    subprocess.run(command, capture_output=True, check=True, timeout=300)


@pytest.fixture(scope="session")
def python_with_agentops(pytestconfig: pytest.Config) -> str:
    """An interpreter that has AgentOps' SDK."""
    return python_with(AGENTOPS, pytestconfig.cache.mkdir("agentops") / "1")  # type: ignore[union-attr]


@pytest.fixture(scope="session")
def python_with_models(pytestconfig: pytest.Config) -> str:
    """An interpreter that has the clients of models and what instruments them."""
    return python_with(MODELS, pytestconfig.cache.mkdir("models") / "1")  # type: ignore[union-attr]


def python_with(packages: list[str], directory: Path) -> str:
    def install(directory: Path) -> None:
        venv.create(directory, with_pip=True)
        command = [str(directory / "bin" / "python"), "-m", "pip", "install", "--quiet", *packages]
        subprocess.run(command, capture_output=True, check=True, timeout=600)

    return str(made_once(directory, install) / "bin" / "python")


def made_once(directory: Path, make: Callable[[Path], None]) -> Path:
    """A finished directory; when two processes make it at once, the first one's stays."""
    mark = directory / "finished"
    if not mark.exists():
        own = directory.with_name(f"{directory.name}-{os.getpid()}")
        own.mkdir(parents=True)
        make(own)
        (own / "finished").touch()
        try:
            own.rename(directory)
        except OSError:
            return own
    return directory


def picture(directory: Path, traces: list[dict[str, Any]]) -> list[str]:
    """The spans of the only trace with a child, as a tree of names and endings."""
    (trace,) = [trace for trace in traces if int(trace["spans"]) > 1]
    groups = SQLiteReader(directory).trace(str(trace["trace_id"]))
    tree = render_tree([span for group in groups for span in group.spans], width=70, details=False)
    without_times = (re.sub(r"\s+[\d.:]+ ?(µs|ms|s|ns)?$", "", line) for line in tree.splitlines())
    return [re.sub(r"\s{2,}", " ", line) for line in without_times]


async def traces_after(sender: Sender, directory: Path, *command: str, **environment: str) -> list[dict[str, Any]]:
    await anyio.to_thread.run_sync(lambda: run([*command], directory, **environment))
    return await sender.traces()


@pytest.mark.anyio
async def test_logfire(tmp_path: Path) -> None:
    installed("logfire")
    async with collecting(tmp_path) as sender:
        client = str(CLIENTS / "with_logfire.py")
        traces = await traces_after(sender, tmp_path, sys.executable, client, OTEL_EXPORTER_OTLP_ENDPOINT=sender.url)
        assert picture(tmp_path, traces) == ["● checkout {customer}", "├─ ● cache miss", "└─ ✕ pay error"]
        assert traces[0]["service"] == "shop"


@pytest.mark.anyio
async def test_langfuse(tmp_path: Path) -> None:
    installed("langfuse")
    async with collecting(tmp_path) as sender:
        (trace,) = await traces_after(sender, tmp_path, sys.executable, str(CLIENTS / "with_langfuse.py"), sender.url)
        assert picture(tmp_path, [trace]) == ["● research", "└─ ● answer"]
        assert (trace["type"], trace["model"], trace["output"]) == ("agent", "gpt-x", "green")
        assert (trace["input_tokens"], trace["output_tokens"]) == (12, 3)


@pytest.mark.anyio
async def test_langfuse_where_a_token_is_wanted(tmp_path: Path) -> None:
    """Its secret key is the password of its requests."""
    installed("langfuse")
    async with collecting(tmp_path, token="sk-lf-1") as sender:
        command = [sys.executable, str(CLIENTS / "with_langfuse.py"), sender.url]
        await anyio.to_thread.run_sync(lambda: run(command, tmp_path))
        assert SQLiteReader(tmp_path).statistics().spans == 2


async def check_the_calls_of_a_model(python: str, name: str, directory: Path) -> None:
    """Two, of a model on this machine; the first is answered with the call of a tool."""
    async with collecting(directory) as sender:
        client = str(CLIENTS / "with_a_model.py")
        (trace,) = await traces_after(sender, directory, python, client, name, sender.url)
        with_anthropic = (
            4 if name in ("openinference-anthropic", "openllmetry-anthropic") else 2
        )  # its SDK tells itself
        assert (trace["name"], trace["service"], trace["errors"]) == ("support", "support", 0)
        said = (trace["input_tokens"], trace["output_tokens"])
        assert said == tuple(with_anthropic * each for each in model.TOKENS)
        assert trace["model"] in ("gpt-x-2026", "claude-y-2026")
        _, body, _ = await sender.get(f"/api/v1/traces?q=text:%22{quote(model.RESULT)}%22")
        assert bool(msgspec.json.decode(body)["traces"]) == (name != "genai-logs")


@pytest.mark.anyio
async def test_an_instrumentation_of_a_model(tmp_path: Path) -> None:
    installed("openinference-instrumentation-openai")
    await check_the_calls_of_a_model(sys.executable, "openinference-openai", tmp_path)


@pytest.mark.long
@pytest.mark.anyio
@pytest.mark.parametrize("name", CALLS)
async def test_all_instrumentations_of_models(tmp_path: Path, python_with_models: str, name: str) -> None:
    await check_the_calls_of_a_model(python_with_models, name, tmp_path)


@pytest.mark.anyio
async def test_opentelemetry_as_json(tmp_path: Path) -> None:
    installed("opentelemetry-exporter-otlp-json-http")
    async with collecting(tmp_path) as sender:
        traces = await traces_after(
            sender, tmp_path, sys.executable, str(CLIENTS / "with_opentelemetry_json.py"), sender.url
        )
        assert picture(tmp_path, traces) == ["● checkout", "├─ ● step", "└─ ✕ pay error"]


@pytest.mark.anyio
@pytest.mark.parametrize("encoding", ["json", "protobuf"])
@pytest.mark.parametrize("compression", ["gzip", "none"])
async def test_opentelemetry_for_javascript(
    tmp_path: Path, node_modules: Path, encoding: str, compression: str
) -> None:
    async with collecting(tmp_path) as sender:
        client = str(node_modules / "with_opentelemetry.mjs")
        (trace,) = await traces_after(sender, tmp_path, "node", client, sender.url, encoding, compression)
        assert (trace["name"], trace["service"], trace["spans"], trace["errors"]) == ("checkout", "node", 302, 1)
        assert trace["input"] == "té"


@pytest.mark.anyio
async def test_langfuse_for_javascript(tmp_path: Path, node_modules: Path) -> None:
    async with collecting(tmp_path) as sender:
        (trace,) = await traces_after(sender, tmp_path, "node", str(node_modules / "with_langfuse.mjs"), sender.url)
        assert picture(tmp_path, [trace]) == ["● research", "└─ ● answer"]
        assert (trace["model"], trace["input_tokens"], trace["output_tokens"]) == ("gpt-x", 12, 3)


@pytest.mark.long
@pytest.mark.anyio
async def test_agentops(tmp_path: Path, python_with_agentops: str) -> None:
    async with collecting(tmp_path) as sender:
        client = str(CLIENTS / "with_agentops.py")
        traces = await traces_after(sender, tmp_path, python_with_agentops, client, sender.url, HOME=str(tmp_path))
        assert picture(tmp_path, traces) == [
            "● checkout.session",
            "├─ ● researcher.agent",
            "│ └─ ● search.tool",
            "└─ ✕ fail.task error",
        ]
