"""The client; `peerbench/side.py` explains its verbs."""

from __future__ import annotations

import json
import subprocess
import sys

from peerbench.side import LIMIT, at, each, serve

program, config = sys.argv[1:]
held = ""


def call(*arguments: str) -> str:
    command = [program, "--config", config, *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def add(*words: str) -> str:
    return call("add", "--print-task-id", "--", *words)


def enqueue(count: int, concurrency: int) -> None:
    call("parallel", str(concurrency))
    call("pause")
    for _ in range(count):
        add("/bin/true")


def finished() -> int:
    tasks = json.loads(call("status", "--json"))["tasks"].values()
    return sum("Done" in task["status"] for task in tasks)


def once() -> None:
    call("wait", "--quiet", add("/bin/true"))


def hold(file: str) -> None:
    global held
    held = add(LIMIT, "hold", file)


serve(
    enqueue=enqueue,
    start=lambda: call("start"),
    finished=finished,
    latency=lambda count: each(count, once),
    hold=hold,
    cancel=lambda: at(lambda: call("kill", held)),
)
