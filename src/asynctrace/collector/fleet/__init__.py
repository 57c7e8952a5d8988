"""The collector as programs of their own, on as many machines as it takes.

    senders ── OTLP ─▶ Ingest ── messages ─▶ stream ── claims ─▶ Worker ── rows ─▶ store ◀── queries ── Viewer ◀── browsers
                         └─▶ spill ─▶┘

_ingest    receives, and keeps nothing         _stream_sink   where it puts what it received
_worker    takes from the stream               _settling      what becomes of one claim
_viewer    shows a store                       _lookout       what is new in a store that others write
_requests  between requests and messages       _metrics       what they counted, as text
_places    stores and streams by their URLs

Each of them is one process that may be killed at any moment, and of which there may be any number.
"""

from __future__ import annotations

from ._ingest import Ingest
from ._places import advice_of, masked, open_reader, open_store
from ._viewer import Viewer
from ._worker import Worker

__all__ = ["Ingest", "Worker", "Viewer", "advice_of", "masked", "open_reader", "open_store"]
