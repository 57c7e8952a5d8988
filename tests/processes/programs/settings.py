"""A program whose tracer has an exporter that cannot go to another process: `settings.py WAY METHOD URL`."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
import sys
import threading

import asynctrace
from asynctrace import processes
from asynctrace.exporters import OTLPExporter

WAY, METHOD, URL = sys.argv[1:] if len(sys.argv) == 4 else ("", "", "")


class Client:
    def __init__(self) -> None:
        self.lock = threading.Lock()


class WithAClient(OTLPExporter):
    def __init__(self, url: str) -> None:
        super().__init__(url)
        self._client = Client()


def task() -> str:
    with asynctrace.trace_component("task") as component:
        return component.trace_id


def main() -> None:
    exporters = [OTLPExporter(URL, name="first"), WithAClient(URL)]
    pools = {"ours": processes.ProcessPoolExecutor, "another": concurrent.futures.ProcessPoolExecutor}
    with (
        asynctrace.configure(service="settings", exporters=exporters, journal=False),
        asynctrace.trace("job") as run,
        pools[WAY](1, multiprocessing.get_context(METHOD)) as pool,
    ):
        try:
            future = pool.submit(asynctrace.bind(task))
            print("submitted")
            print("same trace", future.result() == run.trace_id)
        except asynctrace.ConfigurationError as error:
            print(error)


if __name__ == "__main__":
    main()
