"""HyperQueue from PyPI: its server and one worker with N cores, one core a task.

The package has the Python interface, with the same server and worker as the `hq` program, which is not in a registry.
So: no journal (the queue is in memory), no `hq job cancel`, no streamed output. Stdout and stderr are not kept for
/bin/true, as its guide advises for many short tasks; the output figure is a file on the worker's machine, read by the
client when the job has ended. A backlog is one job; its figure is from the submit, with the worker warm. The package's
own wait asks the server once a second; here the client asks every millisecond.
"""

from __future__ import annotations

import time

from peerbench.install import Cache
from peerbench.peer import Guarantees, Peer
from peerbench.processes import BenchError, Side, cpu_seconds
from peerbench.turn import Throughput, Times, Turn


class This(Peer):
    name = "hyperqueue"
    setup = "local server, one worker with N cores, one job of many tasks; the client asks every ms"
    guarantees = Guarantees("in memory (its `hq` has a journal)", "in memory", "files on the worker", "left")
    share = 0.6
    latency_share = 0.2
    _client: Side | None = None

    def install(self, cache: Cache) -> str:
        self.bin = cache.python("hyperqueue", (self.directory / "requirements.txt").read_text())
        return "0.27.0"

    def close(self) -> None:
        self._client = None

    def throughput(self, turn: Turn, concurrency: int, tasks: int) -> Throughput:
        if self._client is not None:
            self._client.stop()
        directory = turn.directory / f"cluster-{concurrency}"
        directory.mkdir()
        client = self._client = turn.side(
            [self.bin / "python", self.directory / "client.py", directory, str(concurrency)]
        )
        client.call("run", count=tasks // 5)
        cpu, began = cpu_seconds(), time.perf_counter()
        client.call("run", count=tasks)
        return Throughput(tasks, time.perf_counter() - began, cpu_seconds() - cpu)

    def latency(self, turn: Turn, count: int) -> Times | None:
        assert self._client is not None
        return Times.of(self._client.call("latency", count=count))

    def output(self, turn: Turn, size: int, sha256: str) -> float | None:
        assert self._client is not None
        answer = self._client.call("output", size=size)
        if answer["sha256"] != sha256:
            raise BenchError("hyperqueue: the output that was read is not what was written")
        return float(answer["seconds"])
