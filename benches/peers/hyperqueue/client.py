"""A server, a worker and a client in one process, as the package makes them; `peerbench/side.py` explains its verbs."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig
from hyperqueue.ffi.client import ClientConnection

from peerbench.side import LIMIT, each, read, serve

directory = Path(sys.argv[1])
cluster = LocalCluster(str(directory / "server"), WorkerConfig(cores=int(sys.argv[2])))
client = cluster.client()
# `Client.wait_for_jobs` draws a progress bar; this is what it calls.
connection: ClientConnection = client.connection


class Running(Exception):
    """The job has not ended."""


def look(jobs: dict[int, dict[str, Any]]) -> None:
    if not all(job["completed"] for job in jobs.values()):
        raise Running


def wait(job: int) -> None:
    """`wait_for_jobs` asks the server once a second, and calls `look` each time; this asks every millisecond."""
    while True:
        try:
            assert not connection.wait_for_jobs([job], look), "a task failed"
            return
        except Running:
            time.sleep(0.001)


def run(*commands: list[str], stdout: str | None = None) -> None:
    job = Job()
    for command in commands:
        job.program(command, stdout=stdout, stderr=None)
    wait(client.submit(job).id)


def output(size: int) -> bytes:
    file = directory / "stdout"
    run([LIMIT, "produce", str(size)], stdout=str(file))
    return file.read_bytes()


serve(
    run=lambda count: run(*[["/bin/true"]] * count),
    latency=lambda count: each(count, lambda: run(["/bin/true"])),
    output=lambda size: read(lambda: output(size)),
)
