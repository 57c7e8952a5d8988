"""Who moves spans: lanes, batching, retry, receipts. Knows no concrete exporter and nothing of how spans are made."""

from ._batch import Origin, RecordBatch
from ._delivery import Delivery
from ._lane import LaneState, LaneStatistics
from ._options import DeliveryOptions
from ._outside import Outside
from ._tasks import create_patient_task, create_stubborn_task

__all__ = [
    "Delivery",
    "DeliveryOptions",
    "LaneState",
    "LaneStatistics",
    "Origin",
    "Outside",
    "RecordBatch",
    "create_patient_task",
    "create_stubborn_task",
]
