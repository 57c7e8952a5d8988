"""Host, Origin and token: who is answered, and who is not."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from asynctrace import ConfigurationError
from asynctrace.collector import Collector, SQLiteStore
from asynctrace.collector._guard import is_loopback

from .traffic import JSON, checkout, collecting, protobuf

pytestmark = pytest.mark.anyio

BODY = protobuf([checkout()])
EVERY_PATH = ["/", "/healthz", "/readyz", "/api/v1/traces", f"/api/v1/traces/{1:032x}.otlp.json", "/nothing"]


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example", "", "10.0.0.1"])
@pytest.mark.parametrize("path", EVERY_PATH)
async def test_a_foreign_host_is_refused_everywhere(tmp_path: Path, host: str, path: str) -> None:
    async with collecting(tmp_path) as sender:
        assert (await sender.get(path, Host=host))[0] == 403


@pytest.mark.parametrize("host", ["evil.example", "evil.example:4318"])
async def test_a_foreign_host_cannot_send(tmp_path: Path, host: str) -> None:
    async with collecting(tmp_path) as sender:
        assert (await sender.post(BODY, Host=host))[0] == 403
        assert await sender.traces() == []


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST:1", "127.0.0.1:4318", "127.8.8.8", "[::1]:4318", "a.localhost"]
)
async def test_every_name_of_this_machine_is_answered(tmp_path: Path, host: str) -> None:
    async with collecting(tmp_path) as sender:
        assert (await sender.get("/api/v1/traces", Host=host))[0] == 200


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:1", "http://[bad"])
async def test_pages_of_other_origins_cannot_read(tmp_path: Path, origin: str) -> None:
    async with collecting(tmp_path) as sender:
        assert (await sender.get("/api/v1/traces", Origin=origin))[0] == 403
        assert (await sender.get("/api/v1/traces", Origin=sender.url))[0] == 200


async def test_pages_on_localhost_may_send(tmp_path: Path) -> None:
    async with collecting(tmp_path) as sender:
        origin = "http://localhost:5173"
        headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        async with sender.session.options(f"{sender.url}/v1/traces", headers=headers) as preflight:
            assert preflight.status == 204
            assert preflight.headers["Access-Control-Allow-Origin"] == origin
            assert "content-type" in preflight.headers["Access-Control-Allow-Headers"]
        status, _, answer = await sender.post(BODY, Origin=origin)
        assert (status, answer["Access-Control-Allow-Origin"]) == (200, origin)


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://[bad"])
async def test_a_foreign_page_gets_no_leave_to_send(tmp_path: Path, origin: str) -> None:
    async with collecting(tmp_path) as sender:
        headers = {"Origin": origin, "Access-Control-Request-Method": "POST"}
        async with sender.session.options(f"{sender.url}/v1/traces", headers=headers) as preflight:
            assert "Access-Control-Allow-Origin" not in preflight.headers


async def test_with_a_token_only_health_is_public(tmp_path: Path) -> None:
    async with collecting(tmp_path, token="sécret") as sender:
        for path in EVERY_PATH:
            public = path in ("/healthz", "/readyz")
            assert (await sender.get(path))[0] == (200 if public else 401)
        for wrong in ("Bearer", "Bearer wrong", "Basic sécret", "sécret", "Bearer sécret2"):
            assert (await sender.get("/api/v1/traces", Authorization=wrong))[0] == 401
            assert (await sender.post(BODY, Authorization=wrong))[0] == 401
        status, _, headers = await sender.post(BODY)
        assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
        assert (await sender.post(BODY, Authorization="Bearer sécret"))[0] == 200
        assert (await sender.get("/api/v1/traces", Authorization="bearer sécret"))[0] == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com", ""])
def test_other_addresses_need_a_token(tmp_path: Path, host: str) -> None:
    store = SQLiteStore(tmp_path)
    with pytest.raises(ConfigurationError, match="give a token"):
        Collector(store, host=host)
    with pytest.raises(ConfigurationError, match="empty"):
        Collector(store, host=host, token=" ")
    store.close()


async def test_with_a_token_other_addresses_answer_to_any_name(tmp_path: Path) -> None:
    async with collecting(tmp_path, host="0.0.0.0", token="t") as sender:
        url = sender.url.replace("0.0.0.0", "127.0.0.1")
        headers = {"Host": "traces.example", "Authorization": "Bearer t"}
        async with aiohttp.ClientSession() as session, session.get(f"{url}/", headers=headers) as answer:
            assert answer.status == 200


async def test_an_ipv6_address_is_written_as_a_url(tmp_path: Path) -> None:
    async with collecting(tmp_path, host="::1") as sender:
        assert sender.url.startswith("http://[::1]:")
        assert (await sender.get("/healthz"))[0] == 200


async def test_an_address_that_is_taken_is_one_clear_line(tmp_path: Path) -> None:
    async with collecting(tmp_path / "one") as sender:
        port = int(sender.url.rpartition(":")[2])
        store = SQLiteStore(tmp_path / "two")
        with pytest.raises(ConfigurationError, match=rf"127.0.0.1:{port} is in use.*--port") as refusal:
            await Collector(store, port=port).start()
        assert "\n" not in str(refusal.value)
        store.close()


def test_names_that_only_look_local_are_not() -> None:
    assert all(map(is_loopback, ["localhost", "Localhost.", "::1", "127.255.0.1", "x.localhost"]))
    assert not any(map(is_loopback, ["", "localhost.com", "0.0.0.0", "128.0.0.1", "1", "::ffff:10.0.0.1"]))


@pytest.mark.parametrize(
    "query", ["limit=0", "limit=1001", "limit=x", "limit=-1", "cursor=x", "cursor=1-zz", "limit=²"]
)
async def test_a_wrong_parameter_is_named(tmp_path: Path, query: str) -> None:
    async with collecting(tmp_path) as sender:
        status, body, headers = await sender.get(f"/api/v1/traces?{query}")
        assert (status, headers["Content-Type"].partition(";")[0]) == (400, JSON)
        assert query.partition("=")[0] in body.decode()
