"""The fixture `spans`, registered for pytest by installing the package.

    async def test_checkout_retrieves(spans):
        await checkout(tracer=spans.tracer)
        await spans.flush()
        assert_tree(spans.spans, '''
            checkout ok
              retrieve [retriever] ok
        ''')

Every test gets a tracer of its own; nothing global is touched. For the default tracer use
`capture_spans(default=True)`. asynctrace loads when a test first asks for the fixture, not when pytest
starts.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ._capture import CapturedSpans

__all__ = ["spans"]


@pytest.fixture
def spans() -> Iterator[CapturedSpans]:
    """The spans of this test, see `asynctrace.testing.capture_spans()`."""
    from ._capture import capture_spans

    with capture_spans() as captured:
        yield captured
