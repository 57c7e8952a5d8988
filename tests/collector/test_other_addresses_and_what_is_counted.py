"""OTLP under the addresses that SDKs use, the answer's header, metrics that are passed over, tokens, and the counters."""

from __future__ import annotations

import base64
import re
import socket
from pathlib import Path

import aiohttp
import msgspec
import pytest

from asynctrace.collector import Collector, SQLiteStore

from .doubles import StoreThatRemembers
from .traffic import JSON, Sender, checkout, collecting, group, protobuf, span

pytestmark = pytest.mark.anyio

BODY = protobuf([checkout()])
PREFIXES = ["", "/api/public/otel", "/otel"]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize("signal", ["traces", "logs", "metrics"])
async def test_every_signal_is_taken_under_every_address(tmp_path: Path, prefix: str, signal: str) -> None:
    async with collecting(tmp_path) as sender:
        status, _, headers = await sender.post(BODY if signal == "traces" else b"", path=f"{prefix}/v1/{signal}")
        assert status == 200
        assert headers["x-asynctrace-open-spans"] == "1"
        assert len(await sender.traces()) == (signal == "traces")


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_pages_on_localhost_may_send_under_every_address(tmp_path: Path, prefix: str) -> None:
    async with collecting(tmp_path) as sender:
        origin = "http://localhost:5173"
        headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        async with sender.session.options(f"{sender.url}{prefix}/v1/traces", headers=headers) as preflight:
            assert (preflight.status, preflight.headers["Access-Control-Allow-Origin"]) == (204, origin)


async def test_agentops_gets_a_token_for_its_key(tmp_path: Path) -> None:
    async with collecting(tmp_path) as sender:
        status, answer, _ = await sender.post(b'{"api_key":"x"}', path="/v3/auth/token", content_type=JSON)
        assert (status, msgspec.json.decode(answer)["token"]) == (200, "local")
        assert (await sender.post(b"{", path="/v3/auth/token", content_type=JSON))[0] == 400


async def test_agentops_gets_no_token_for_a_wrong_key(tmp_path: Path) -> None:
    async with collecting(tmp_path, token="secret") as sender:
        assert (await sender.post(b'{"api_key":"x"}', path="/v3/auth/token", content_type=JSON))[0] == 401
        status, answer, _ = await sender.post(b'{"api_key":"secret"}', path="/v3/auth/token", content_type=JSON)
        assert status == 200
        token = msgspec.json.decode(answer)["token"]
        assert (await sender.post(BODY, Authorization=f"Bearer {token}"))[0] == 200


def basic(password: str) -> str:
    return "Basic " + base64.b64encode(f"public-key:{password}".encode()).decode()


async def test_langfuse_sends_the_token_as_its_secret_key(tmp_path: Path) -> None:
    async with collecting(tmp_path, token="secret") as sender:
        path = "/api/public/otel/v1/traces"
        assert (await sender.post(BODY, path=path, Authorization=basic("secret")))[0] == 200
        for wrong in (basic("wrong"), "Basic secret", "Basic \N{SNOWMAN}".encode().decode("latin-1"), basic("")):
            assert (await sender.post(BODY, path=path, Authorization=wrong))[0] == 401


async def test_a_browser_gives_the_token_once(tmp_path: Path) -> None:
    async with collecting(tmp_path, token="secret") as sender:
        page = f"{sender.url}/api/v1/traces"
        async with sender.session.get(f"{page}?token=wrong") as answer:
            assert answer.status == 401
            assert "/?token=TOKEN" in (await answer.json())["error"]
        async with sender.session.get(f"{page}?limit=5&token=secret", allow_redirects=False) as answer:
            assert (answer.status, answer.headers["Location"]) == (303, "/api/v1/traces?limit=5")
            cookie = answer.headers["Set-Cookie"]
            assert "HttpOnly" in cookie
            assert "SameSite=Strict" in cookie
        name, _, value = cookie.partition(";")[0].partition("=")
        for given, status in ((value, 200), ("wrong", 401)):
            async with aiohttp.ClientSession() as browser, browser.get(page, cookies={name: given}) as answer:
                assert answer.status == status


async def counted(sender: Sender) -> dict[str, int]:
    status, body, headers = await sender.get("/metrics")
    assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    lines = [line for line in body.decode().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r'[a-z_]+(\{([a-z]+="[a-z_]+",?)+\})? \d+', line) for line in lines)
    return {
        name.removeprefix("asynctrace_collector_"): int(number)
        for name, _, number in (x.rpartition(" ") for x in lines)
    }


async def test_what_came_is_counted(tmp_path: Path) -> None:
    async with collecting(tmp_path) as sender:
        bad = BODY.replace(bytes.fromhex(f"{2:016x}"), bytes(8))
        for body in (BODY, BODY, bad, BODY[:-3]):
            await sender.post(body)
        await sender.post(b"", content_type="text/plain")
        await sender.post(b"metrics", path="/v1/metrics")
        numbers = await counted(sender)
        assert {name: number for name, number in numbers.items() if number} == {
            'requests_total{signal="traces",outcome="accepted"}': 3,
            'requests_total{signal="traces",outcome="malformed"}': 1,
            'requests_total{signal="traces",outcome="unsupported"}': 1,
            'requests_total{signal="metrics",outcome="accepted"}': 1,
            "bytes_total": 4 * len(BODY) - 3 + len(b"metrics"),
            "spans_total": 8,
            "rejected_total": 1,
            "ignored_total": 1,
            "commits_total": 2,
        }


async def test_the_same_body_is_stored_once_and_another_one_too(tmp_path: Path) -> None:
    store = StoreThatRemembers(tmp_path)
    async with collecting(store) as sender:
        for body in (BODY, BODY, protobuf([group(span(2, 1))]), BODY):
            assert (await sender.post(body))[0] == 200
        assert [len(received.rows) for received in store.given] == [3, 1]


# ── the second address ──────────────────────────────────────────────────────────────────────────────────────


def a_free_port() -> socket.socket:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    return listener


async def test_otlp_is_taken_on_its_own_port_too(tmp_path: Path) -> None:
    with a_free_port() as held:
        port: int = held.getsockname()[1]
    store = SQLiteStore(tmp_path)
    async with Collector(store, port=0, otlp_port=port) as collector, aiohttp.ClientSession() as session:
        assert collector.otlp_url == f"http://127.0.0.1:{port}"
        assert (await Sender(session, collector.otlp_url).post(BODY))[0] == 200
        assert len(await Sender(session, collector.url).traces()) == 1
    store.close()


async def test_a_port_that_is_taken_is_left_to_its_owner(tmp_path: Path) -> None:
    store = SQLiteStore(tmp_path)
    with a_free_port() as held:
        held.listen()
        async with Collector(store, port=0, otlp_port=held.getsockname()[1]) as collector:
            assert collector.otlp_url is None
            assert collector.url
    store.close()
