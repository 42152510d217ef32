"""The client; `peerbench/side.py` explains its verbs."""

from __future__ import annotations

from celery.result import AsyncResult

from app import command, output
from peerbench.side import LIMIT, at, each, read, serve

held: AsyncResult


def enqueue(count: int) -> None:
    with command.app.producer_or_acquire() as producer:
        for _ in range(count):
            command.apply_async([["/bin/true"]], producer=producer)


def once() -> None:
    assert command.delay(["/bin/true"]).get() == 0


def hold(file: str) -> None:
    global held
    held = command.delay([LIMIT, "hold", file])


serve(
    enqueue=enqueue,
    latency=lambda count: each(count, once),
    output=lambda size: read(lambda: output.delay([LIMIT, "produce", str(size)]).get()),
    hold=hold,
    cancel=lambda: at(lambda: held.revoke(terminate=True)),
)
