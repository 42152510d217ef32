"""The client; `peerbench/side.py` explains its verbs."""

from __future__ import annotations

import os

from redis import Redis
from rq import Queue
from rq.command import send_stop_job_command
from rq.job import Job

from app import command
from peerbench.side import LIMIT, at, each, serve

redis = Redis.from_url(os.environ["PEER_URL"])
queue = Queue(connection=redis)
held: Job


def enqueue(count: int) -> None:
    tasks = [Queue.prepare_data(command, [["/bin/true"]]) for _ in range(count)]
    queue.enqueue_many(tasks)


def once() -> None:
    result = queue.enqueue(command, ["/bin/true"]).latest_result(timeout=30)
    assert result is not None and result.return_value == 0


def hold(file: str) -> None:
    global held
    held = queue.enqueue(command, [LIMIT, "hold", file])


serve(
    enqueue=enqueue,
    latency=lambda count: each(count, once),
    hold=hold,
    cancel=lambda: at(lambda: send_stop_job_command(redis, held.id)),
)
