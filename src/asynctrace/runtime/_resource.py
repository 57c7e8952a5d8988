"""What this process is: the OTLP resource of its spans."""

from __future__ import annotations

import functools
import os
import socket
import sys
from collections.abc import Mapping
from uuid import uuid4

from .._contracts import AttributeValue, Resource

__all__ = ["SDK_VERSION", "make_resource"]

SDK_VERSION = "0.1.0"


def make_resource(service: str, given: Mapping[str, AttributeValue], from_environment: Mapping[str, str]) -> Resource:
    """OpenTelemetry resource semantic conventions: service, process, host, telemetry. `given` wins over the environment,
    both win over what is found out here, except for the name and version of the SDK."""
    return Resource(
        attributes={
            "service.instance.id": _instance_id(os.getpid()),
            "process.pid": os.getpid(),
            "process.runtime.name": sys.implementation.name,
            "process.runtime.version": sys.version.split()[0],
            "host.name": socket.gethostname(),
            **from_environment,
            **given,
            "service.name": service,
            "telemetry.sdk.name": "asynctrace",
            "telemetry.sdk.language": "python",
            "telemetry.sdk.version": SDK_VERSION,
        }
    )


@functools.cache
def _instance_id(pid: int) -> str:
    """One for each process: a forked child has a process id of its own, and so an instance id of its own."""
    return str(uuid4())
