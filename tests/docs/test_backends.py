"""The pages on backends: their settings, as a shell would set them, make a tracer send to the path and with the headers that
the backend's own documentation asks for. Only the host is exchanged, for a server of the test."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from asynctrace import Tracer
from asynctrace.testing import FaultServer

pytestmark = pytest.mark.anyio

PAGES = Path(__file__).parents[2] / "docs" / "how-to"

EXPECTED = {
    "langfuse": (
        "/api/public/otel/v1/traces",
        {"authorization": "Basic cGstbGYtMTpzay1sZi0x", "content-encoding": "gzip"},
    ),
    "logfire": ("/v1/traces", {"authorization": "your-write-token", "content-encoding": "gzip"}),
    "phoenix": ("/v1/traces", {"content-type": "application/x-protobuf"}),
    "jaeger": ("/v1/traces", {"content-type": "application/x-protobuf"}),
    "tempo": ("/otlp/v1/traces", {"authorization": "Basic MTIzNDU2OmdsY190b2tlbg=="}),
    "honeycomb": ("/v1/traces", {"x-honeycomb-team": "your-ingest-key"}),
}
"""Path and headers of an export request, from what each backend documents."""


def settings_of(page: Path) -> dict[str, str]:
    """The variables that the page's first `sh` block exports, read by a shell."""
    block = re.search(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert block is not None
    printed = subprocess.run(
        ["bash", "-c", f"{block[1]}\nenv"], env={}, capture_output=True, text=True, check=True, timeout=30
    ).stdout
    return dict(line.split("=", 1) for line in printed.splitlines() if line.startswith("OTEL_"))


def with_host(url: str, server: str) -> str:
    return re.sub(r"^https?://[^/]+", server, url)


async def sent_with(settings: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> tuple[str, dict[str, str], str]:
    """Path, headers (names in lower case) and service of the request that a tracer with `settings` sends."""
    async with FaultServer() as server:
        for name, value in settings.items():
            monkeypatch.setenv(name, with_host(value, server.url) if name.endswith("ENDPOINT") else value)
        async with Tracer(journal=False) as tracer:
            with tracer.trace("first contact"):
                pass
            await tracer.flush(timeout=30)
        (request,) = server.requests
        return request.path, {name.lower(): value for name, value in request.headers.items()}, tracer.service


@pytest.mark.parametrize("name", EXPECTED)
async def test_the_settings_of_a_page_reach_the_backends_endpoint(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path, headers, service = await sent_with(settings_of(PAGES / f"send-to-{name}.md"), monkeypatch)
    expected_path, expected_headers = EXPECTED[name]
    assert (path, service) == (expected_path, "shop")
    assert {key: headers.get(key) for key in expected_headers} == expected_headers


async def test_settings_with_another_path_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(PAGES / "send-to-langfuse.md")
    settings["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] = "https://cloud.langfuse.com/api/public/otel"
    path, _, _ = await sent_with(settings, monkeypatch)
    assert path != EXPECTED["langfuse"][0]


def test_every_page_on_a_backend_is_checked() -> None:
    pages = {page.stem.removeprefix("send-to-") for page in PAGES.glob("send-to-*.md")} - {"any-otlp-backend"}
    assert pages == set(EXPECTED)
