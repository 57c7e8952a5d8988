"""Messages as files: what Celery takes for a broker where no server is to be installed."""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = Path(os.environ.get("BROKER", "."))

OPTIONS = {
    "broker_transport_options": {
        "data_folder_in": str(FOLDER / "queue"),
        "data_folder_out": str(FOLDER / "queue"),
        "control_folder": str(FOLDER / "control"),
        "processed_folder": str(FOLDER / "processed"),
        "store_processed": True,
        "polling_interval": 0.02,
    },
    "worker_prefetch_multiplier": 1,
    "task_ignore_result": True,
    "worker_lost_wait": 0.1,
}
