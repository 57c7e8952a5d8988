"""Questions to ClickHouse, and their answers as rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from ._client import Client

__all__ = ["IDENTITY", "SPAN_IDENTITY", "Bound", "Row", "select"]

Row = list[Any]
_rows: Final = msgspec.json.Decoder(list[list[Any]])
PLAIN: Final = {"output_format_json_quote_64bit_integers": 0, "output_format_json_quote_denormals": 0}
ESCAPES: Final = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r", "\0": "\\0"}
IDENTITY: Final = "toFixedString(unhex({}), 16)"
SPAN_IDENTITY: Final = "toFixedString(unhex({}), 8)"
"""Ids are bound as text. As a plain String one that ends in zeros would not always be found."""
_ESCAPED: Final = str.maketrans(ESCAPES)


class Bound:
    """The values of one statement, each under a name of its own."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def __call__(self, value: str | int | list[int] | list[str], kind: str) -> str:
        """The place of `value` in the statement, as a parameter of the type `kind` of ClickHouse.

        A text in a list has letters and digits only.
        """
        name = f"p{len(self.values)}"
        self.values[name] = _written(value)
        return f"{{{name}:{kind}}}"


def select(
    client: Client, statement: str, bound: Bound | None = None, settings: Mapping[str, str | int] = {}
) -> list[Row]:
    """The rows that a statement finds. 64-bit integers are exact; bytes have to be asked for as text."""
    answer = client.ask(
        f"{statement} FORMAT JSONCompactEachRow",
        bound.values if bound is not None else {},
        settings={**PLAIN, **settings},
    )
    return _rows.decode(b"[" + b",".join(answer.splitlines()) + b"]")


def _written(value: str | int | list[int] | list[str]) -> str:
    """As ClickHouse reads parameters: https://clickhouse.com/docs/interfaces/http#http-queries-with-parameters."""
    if isinstance(value, list):
        return f"[{','.join(repr(each) for each in value)}]"
    return value.encode("utf-8", "replace").decode().translate(_ESCAPED) if isinstance(value, str) else str(value)
