"""What the far side said about a refusal travels on with it: one line for people, and no credential in it."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable

import pytest

from asynctrace import Batch, ExportResult
from asynctrace.exporters import OTLPExporter, _answers, _endpoint
from asynctrace.exporters._answers import Answer, result_of
from asynctrace.testing import FaultServer
from asynctrace.testing._faults import PartialSuccess, Status
from asynctrace.wire import encode_varint, length_delimited

JSON = {"Content-Type": "application/json"}
PROTOBUF = {"Content-Type": "application/x-protobuf"}
TEXT = {"Content-Type": "text/plain"}


def rpc_status(message: str) -> bytes:
    return b"\x08" + encode_varint(3) + length_delimited(b"\x12", message.encode())


def detail_of(status: int, body: bytes, headers: dict[str, str]) -> str:
    return result_of(Answer(status=status, headers=headers, body=body), 3)[0].detail


@pytest.mark.parametrize(
    ("status", "body", "headers", "detail"),
    [
        (400, b"no such field", TEXT, "400 Bad Request: no such field"),
        (400, rpc_status("no such field"), PROTOBUF, "400 Bad Request: no such field"),
        (422, b"", TEXT, "422 Unprocessable Entity"),
        (413, b"over\r\n\x1b[31m1 MB\x00", TEXT, "413 Request Entity Too Large: over [31m1 MB"),
        (400, b"\xff\xfe no text", PROTOBUF, "400 Bad Request: \ufffd\ufffd no text"),
        (400, b"x" * 10_000, TEXT, f"400 Bad Request: {'x' * 500}"),
        (503, b"later", TEXT, ""),
        (
            200,
            json.dumps({"partialSuccess": {"rejectedSpans": "2", "errorMessage": "old"}}).encode(),
            JSON,
            "200 OK: old",
        ),
        (200, b"", PROTOBUF, ""),
    ],
)
def test_a_refusal_carries_the_status_line_and_the_message(
    status: int, body: bytes, headers: dict[str, str], detail: str
) -> None:
    assert (
        detail_of(status, body, headers)
        .replace("Content Too Large", "Request Entity Too Large")
        .replace("Unprocessable Content", "Unprocessable Entity")
        == detail
    )  # (Python 3.13 follows RFC 9110's newer phrases)


SECRETS = ("k-1234567890", "hunter22", "q-token-77", base64.b64encode(b"shop:hunter22").decode())


def echo() -> str:
    return "you sent " + ", ".join(SECRETS)


async def check_no_credential_is_kept(answer: Status | PartialSuccess, batch: Batch) -> ExportResult:
    async with FaultServer(default=answer) as server:
        url = server.url.replace("http://", "http://shop:hunter22@") + "/v1/traces?token=q-token-77"
        exporter = OTLPExporter(url, headers={"x-api-key": "k-1234567890"})
        result = await exporter.export(batch)
        await exporter.aclose()
    assert "you sent" in result.detail, result.detail
    assert not [secret for secret in SECRETS if secret in result.detail]
    return result


ANSWERS = [Status(400, body=echo().encode()), PartialSuccess(rejected=1, message=echo())]


@pytest.mark.anyio
@pytest.mark.parametrize("answer", ANSWERS, ids=["refused", "partial success"])
async def test_no_credential_is_kept_when_the_far_side_quotes_it(
    answer: Status | PartialSuccess, make_batch: Callable[[int], Batch]
) -> None:
    await check_no_credential_is_kept(answer, make_batch(1))


def quotes_everything(text: str, settings: object) -> str:
    return text


def masks_whole_headers_only(text: str, settings: _endpoint.Settings) -> str:
    for value in settings.headers.values():
        text = text.replace(value, "[masked]")
    return text


@pytest.mark.anyio
@pytest.mark.parametrize("wrong", [quotes_everything, masks_whole_headers_only])
async def test_an_exporter_that_lets_a_credential_through_is_caught(
    wrong: Callable[..., str], monkeypatch: pytest.MonkeyPatch, make_batch: Callable[[int], Batch]
) -> None:
    monkeypatch.setattr("asynctrace.exporters._otlp.without_secrets", wrong)
    with pytest.raises(AssertionError):
        await check_no_credential_is_kept(ANSWERS[0], make_batch(1))


def test_short_values_of_headers_tear_no_holes() -> None:
    settings = _endpoint.checked_settings(
        "http://h/v1/traces?a=1", {"x-on": "1", "authorization": "Bearer abcd99"}, None, None
    )
    assert _endpoint.without_secrets("1 bearer abcd99, 1", settings) == "1 bearer [masked], 1"
    assert _answers.MESSAGE_CHARACTERS == 500
