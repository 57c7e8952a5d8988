"""Who moves spans: lanes, batching, retry, receipts. Knows no concrete exporter and nothing of how spans are made."""

from ._batch import RecordBatch
from ._delivery import Delivery
from ._lane import LaneState, LaneStatistics
from ._options import DeliveryOptions
from ._outside import Outside
from ._tasks import create_stubborn_task

__all__ = [
    "Delivery",
    "DeliveryOptions",
    "LaneState",
    "LaneStatistics",
    "Outside",
    "RecordBatch",
    "create_stubborn_task",
]
