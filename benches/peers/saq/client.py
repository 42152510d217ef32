"""The client; `peerbench/side.py` explains its verbs."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Coroutine
from typing import Any, TypeVar

from saq import Job, Status
from saq.job import TERMINAL_STATUSES

from app import queue
from peerbench.side import LIMIT, PAUSE, at, serve

Answer = TypeVar("Answer")
loop = asyncio.new_event_loop()
held: Job | None = None


def wait(work: Coroutine[Any, Any, Answer]) -> Answer:
    return loop.run_until_complete(work)


async def submit(*words: str, **settings: str) -> Job:
    job = await queue.enqueue("command", words=words, timeout=0, **settings)
    assert job is not None
    return job


async def enqueue(count: int) -> None:
    await asyncio.gather(*(submit("/bin/true") for _ in range(count)))


async def once(key: str) -> None:
    """`Queue.apply` polls twice a second; `Queue.listen` hears the end by publish/subscribe."""
    ended: list[Status] = []

    def hear(_: str, status: Status) -> bool:
        ended.append(status)
        return status in TERMINAL_STATUSES

    listener = asyncio.create_task(queue.listen([key], hear, timeout=30))
    await submit("/bin/true", key=key)
    await listener
    assert ended[-1] is Status.COMPLETE, ended


async def latency(count: int) -> list[float]:
    # While somebody listens, the subscription stays: the next listener misses nothing.
    standing = asyncio.create_task(queue.listen(["nobody"], lambda *_: False, timeout=0))
    times = []
    for _ in range(count):
        await asyncio.sleep(PAUSE)
        key, began = uuid.uuid4().hex, time.perf_counter()
        await once(key)
        times.append(time.perf_counter() - began)
    standing.cancel()
    return times


async def hold(file: str) -> None:
    global held
    held = await submit(LIMIT, "hold", file)


def cancel() -> int:
    assert held is not None
    return at(lambda: wait(held.abort("cancelled")))


wait(queue.connect())
serve(
    enqueue=lambda count: wait(enqueue(count)),
    latency=lambda count: wait(latency(count)),
    hold=lambda file: wait(hold(file)),
    cancel=cancel,
)
