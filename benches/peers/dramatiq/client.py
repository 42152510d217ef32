"""The client; `peerbench/side.py` explains its verbs."""

from __future__ import annotations

from app import command
from peerbench.side import each, serve


def enqueue(count: int) -> None:
    for _ in range(count):
        command.send(["/bin/true"])


def once() -> None:
    assert command.send(["/bin/true"]).get_result(block=True) == 0


serve(enqueue=enqueue, latency=lambda count: each(count, once))
