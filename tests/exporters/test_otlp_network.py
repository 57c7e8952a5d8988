"""What a network can do to a request: each failure has a deadline, a name and an outcome."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from asynctrace._contracts import ExportResult, Outcome
from asynctrace.exporters import OTLPExporter
from asynctrace.testing._faults import (
    Accept,
    AcceptThenReset,
    Delay,
    FaultServer,
    HalfClose,
    Hang,
    ResetBeforeResponse,
    ResetMidBody,
    StallMidBody,
    Status,
    Truncated,
)

from ..patience import patient

pytestmark = pytest.mark.anyio

TIMEOUT = 0.4


async def export_to(url: str, make_batch, **settings) -> ExportResult:
    """One export with a short timeout, which it must keep."""
    exporter = OTLPExporter(url, timeout=settings.pop("timeout", TIMEOUT), **settings)
    await exporter.start()  # loading aiohttp is not part of the request
    began = time.monotonic()
    try:
        result = await exporter.export(make_batch())
    finally:
        await exporter.aclose()
    assert time.monotonic() - began < patient(5)
    return result


@pytest.mark.parametrize(
    ("fault", "reason", "accepted"),
    [
        (ResetBeforeResponse(), "reset", 0),
        (AcceptThenReset(), "reset", 3),
        (HalfClose(), "reset", 0),
        (ResetMidBody(), "reset", 3),
        (Truncated(), "reset", 3),
        (StallMidBody(), "stalled", 3),
        (Hang(), "read_timeout", 0),
        (Delay(30), "read_timeout", 0),
    ],
    ids=lambda value: type(value).__name__ if not isinstance(value, str | int) else str(value),
)
async def test_a_failure_on_the_way_means_try_again_and_is_named(make_batch, fault, reason, accepted) -> None:
    async with FaultServer(default=fault) as server:
        result = await export_to(server.url, make_batch)
        assert (result.outcome, result.reason) == (Outcome.TRY_AGAIN, reason)
        assert len(server.requests) == 1, "an exporter never retries by itself"
        assert len(server.spans) == accepted


async def test_an_ambiguous_batch_is_repeated_under_the_same_key(make_batch) -> None:
    async with FaultServer() as server:
        server.plan(AcceptThenReset())
        exporter = OTLPExporter(server.url)
        batch = make_batch(key="the-one")
        assert (await exporter.export(batch)).outcome is Outcome.TRY_AGAIN
        assert (await exporter.export(batch)).accepted == 3
        await exporter.aclose()
    assert [request.key for request in server.requests] == ["the-one", "the-one"]
    assert set(server.accepted_ids.values()) == {2}


@pytest.mark.parametrize(
    ("fault", "outcome", "reason"),
    [
        (StallMidBody(status=503), Outcome.TRY_AGAIN, "http_503"),
        (StallMidBody(status=400), Outcome.REFUSED, "http_400"),
        (ResetMidBody(status=413), Outcome.TOO_LARGE, "http_413"),
        (Truncated(status=401), Outcome.BLOCKED, "http_401"),
    ],
)
async def test_a_refusal_counts_although_its_body_never_comes(make_batch, fault, outcome, reason) -> None:
    async with FaultServer(default=fault) as server:
        result = await export_to(server.url, make_batch, timeout=2.0)
    assert (result.outcome, result.reason) == (outcome, reason)


async def test_nobody_listening_is_a_connect_error(make_batch) -> None:
    async with FaultServer() as server:
        url = server.url
    result = await export_to(url, make_batch)
    assert (result.outcome, result.reason) == (Outcome.TRY_AGAIN, "connect_error")


async def test_an_unknown_name_is_a_dns_error(make_batch) -> None:
    for host in ("nowhere.invalid", "a" * 70 + ".invalid"):
        result = await export_to(f"http://{host}:4318", make_batch, timeout=10.0)
        assert (result.outcome, result.reason) == (Outcome.TRY_AGAIN, "dns_error")


async def test_a_host_that_never_answers_is_a_connect_timeout(make_batch) -> None:
    """A listener whose queue is full: the kernel lets further connections wait."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        try:
            for each in waiting:
                each.setblocking(False)
                each.connect_ex(listener.getsockname())
            result = await export_to(f"http://127.0.0.1:{listener.getsockname()[1]}", make_batch)
        finally:
            for each in waiting:
                each.close()
    assert (result.outcome, result.reason) == (Outcome.TRY_AGAIN, "connect_timeout")


@asynccontextmanager
async def raw_server(answer: bytes) -> AsyncIterator[str]:
    """Says `answer` to whoever connects, whatever they say."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(answer)
        writer.close()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("answer", [b"SSH-2.0-OpenSSH_9.2\r\n\r\n", b"HTTP/1.1 banana\r\n\r\n"])
async def test_an_answer_that_is_no_http_means_try_again(make_batch, answer: bytes) -> None:
    async with raw_server(answer) as url:
        result = await export_to(url, make_batch)
    assert result.outcome is Outcome.TRY_AGAIN
    assert result.reason in ("protocol_error", "reset")


async def test_an_endless_answer_is_not_read(make_batch) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n"
    async with raw_server(head + b"x" * 1_000_000) as url:
        assert (await export_to(url, make_batch)).accepted == 3


async def test_a_connection_is_used_again_and_replaced_when_it_broke(make_batch) -> None:
    async with FaultServer() as server:
        exporter = OTLPExporter(server.url)
        server.plan(Accept(), Accept(), Status(503), ResetBeforeResponse())
        results = [await exporter.export(make_batch()) for _ in range(6)]
        await exporter.aclose()
    assert [result.accepted for result in results] == [3, 3, 0, 0, 3, 3]


async def test_a_cancelled_export_closes_its_connection_and_the_next_one_works(make_batch) -> None:
    async with FaultServer() as server:
        server.plan(Hang())
        exporter = OTLPExporter(server.url)
        exporting = asyncio.create_task(exporter.export(make_batch()))
        await server.wait_for_requests(1)
        exporting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await exporting
        assert (await exporter.export(make_batch())).accepted == 3
        await exporter.aclose()
    assert len(server.spans) == 3


async def test_several_requests_are_in_flight_at_once(make_batch) -> None:
    async with FaultServer(default=Hang()) as server:
        exporter = OTLPExporter(server.url)
        exporting = [asyncio.create_task(exporter.export(make_batch(key=f"k{n}"))) for n in range(4)]
        await server.wait_for_requests(4)
        server.release()
        assert [(await each).accepted for each in exporting] == [3, 3, 3, 3]
        await exporter.aclose()
    assert server.max_in_flight == 4


# TLS


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(authority: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return path


def server_context(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


async def test_tls_with_an_own_authority_works(make_batch, authority, ca_file) -> None:
    async with FaultServer(ssl_context=server_context(authority, "127.0.0.1")) as server:
        result = await export_to(server.url, make_batch, ca_file=ca_file, timeout=5.0)
    assert result.accepted == 3


async def test_requests_that_begin_at_once_share_one_session(make_batch, authority, ca_file) -> None:
    async with FaultServer(ssl_context=server_context(authority, "127.0.0.1")) as server:
        exporter = OTLPExporter(server.url, ca_file=ca_file)
        results = await asyncio.gather(*(exporter.export(make_batch()) for _ in range(4)))
        await exporter.aclose()
        gc.collect()  # a session that was left behind would complain now
    assert [result.accepted for result in results] == [3] * 4


async def test_the_file_given_wins_over_the_environment(make_batch, authority, ca_file, monkeypatch) -> None:
    stranger = ca_file.with_name("stranger.pem")
    trustme.CA().cert_pem.write_to_path(stranger)
    for variable in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
        monkeypatch.setenv(variable, str(stranger))
    async with FaultServer(ssl_context=server_context(authority, "127.0.0.1")) as server:
        result = await export_to(server.url, make_batch, ca_file=ca_file, timeout=5.0)
        assert result.accepted == 3
        monkeypatch.setenv("SSL_CERT_FILE", str(ca_file))
        result = await export_to(server.url, make_batch, ca_file=stranger, timeout=5.0)
        assert result.reason == "tls_error"


async def test_an_unknown_authority_a_wrong_name_and_no_tls_at_all_block(make_batch, authority, ca_file) -> None:
    async with (
        FaultServer(ssl_context=server_context(authority, "127.0.0.1")) as unknown,
        FaultServer(ssl_context=server_context(authority, "example.org")) as misnamed,
        FaultServer() as plain,
    ):
        for url, settings in (
            (unknown.url, {}),
            (misnamed.url, {"ca_file": ca_file}),
            (plain.url.replace("http:", "https:"), {}),
        ):
            result = await export_to(url, make_batch, timeout=5.0, **settings)
            assert (result.outcome, result.reason) == (Outcome.BLOCKED, "tls_error")
        assert unknown.requests + misnamed.requests == []


async def test_a_ca_file_without_a_certificate_blocks(make_batch, tmp_path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    result = await export_to("https://127.0.0.1:1", make_batch, ca_file=tmp_path / "ca.pem")
    assert (result.outcome, result.reason) == (Outcome.BLOCKED, "tls_error")
