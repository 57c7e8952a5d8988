"""Who moves spans: lanes, batching, retry, receipts. Knows no concrete exporter and nothing of how spans are made."""

from ._batch import Origin, RecordBatch
from ._callbacks import Callbacks, DeliveryNotice, NoticeCallback
from ._dead_letters import DeadLetters
from ._delivery import Delivery
from ._executor import OwnExecutor, in_place
from ._lane_state import LaneState, LaneStatistics
from ._options import DeliveryOptions
from ._outside import Outside
from ._tasks import create_patient_task, create_stubborn_task

__all__ = [
    "Callbacks",
    "DeadLetters",
    "Delivery",
    "DeliveryNotice",
    "DeliveryOptions",
    "LaneState",
    "LaneStatistics",
    "NoticeCallback",
    "Origin",
    "Outside",
    "OwnExecutor",
    "RecordBatch",
    "create_patient_task",
    "create_stubborn_task",
    "in_place",
]
