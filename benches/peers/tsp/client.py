"""The client; `peerbench/side.py` explains its verbs. Its socket and its slots are in the environment."""

from __future__ import annotations

import os
import subprocess
import sys

from peerbench.side import LIMIT, at, each, serve

tsp = sys.argv[1]
count_of_jobs = 0
held = ""
blockers: list[str] = []


def call(*arguments: str) -> None:
    subprocess.run([tsp, *arguments], check=True)


def add(*words: str) -> str:
    """Queues a task and returns its number; with `-n`, tsp doesn't print it: they count from 0."""
    global count_of_jobs
    call("-n", *words)
    count_of_jobs += 1
    return str(count_of_jobs - 1)


def enqueue(count: int) -> None:
    """The backlog waits behind tasks that fill all slots."""
    slots = int(os.environ["TS_SLOTS"])
    blockers[:] = [add("sleep", "1000") for _ in range(slots)]
    for _ in range(count - 1):
        add("/bin/true")


def drain() -> None:
    """Ends those tasks, and waits for one that is queued last."""
    last = add("/bin/true")
    for blocker in blockers:
        call("-k", blocker)
    call("-w", last)


def hold(file: str) -> None:
    global held
    held = add(LIMIT, "hold", file)


serve(
    enqueue=enqueue,
    drain=drain,
    latency=lambda count: each(count, lambda: add("-f", "/bin/true")),
    hold=hold,
    cancel=lambda: at(lambda: call("-k", held)),
    stop=lambda: call("-K"),
)
