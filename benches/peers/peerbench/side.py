"""The loop of a client in Python; it runs in the peer's own environment, see `processes.Side`.

Verbs: `enqueue` (count), `latency` (count) -> seconds of each, `output` (bytes) -> seconds and SHA-256,
`hold` (file): submits a task that sleeps, `cancel` -> CLOCK_MONOTONIC just before the call, `forget`.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

# As in limit.c.
PAUSE = 0.005
# What a library prints must not get between the answers.
_answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
LIMIT = os.environ.get("PEERBENCH_LIMIT", "")


def serve(**verbs: Callable[..., Any]) -> None:
    """Answers requests until stdin ends."""
    for line in sys.stdin:
        request = json.loads(line)
        answer = verbs[request.pop("do")](**request)
        _answers.write(json.dumps(answer) + "\n")
        _answers.flush()


def each(count: int, once: Callable[[], Any]) -> list[float]:
    """Seconds of each of `count` calls, one after the other; the machine is idle for `PAUSE` in between."""
    times = []
    for _ in range(count):
        time.sleep(PAUSE)
        began = time.perf_counter()
        once()
        times.append(time.perf_counter() - began)
    return times


def read(fetch: Callable[[], bytes]) -> dict[str, Any]:
    """Seconds until the whole output is here, and its digest, which is made after that."""
    began = time.perf_counter()
    output = fetch()
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "sha256": hashlib.sha256(output).hexdigest()}


def at(call: Callable[[], Any]) -> int:
    """CLOCK_MONOTONIC in nanoseconds just before a call."""
    before = time.monotonic_ns()
    call()
    return before
