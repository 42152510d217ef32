"""task-spooler (tsp) from Debian: a server that starts with the first task, and a process for each task that waits.

Output is not kept (`-n`), the fastest way. The backlog waits behind sleeping tasks that fill all slots; the time is
from their end until the task that was queued last has ended. One task at a time is `tsp -n -f`, which waits for it.
"""

from __future__ import annotations

import sys
import time

from peerbench.install import Cache, output
from peerbench.peer import Guarantees, Peer
from peerbench.processes import Side, cpu_seconds
from peerbench.turn import Survives, Throughput, Times, Turn, cancel_times


class This(Peer):
    name = "tsp"
    setup = "`tsp -n`, N slots"
    guarantees = Guarantees("in memory", "in memory", "a file", "left; `-k` ends the process group")
    share = 0.1
    _client: Side | None = None

    def install(self, cache: Cache) -> str:
        self.program = cache.debian("tsp", "task-spooler=1.0.1") / "usr/bin/tsp"
        return output([self.program, "-V"]).split(" - ")[0].split("v")[-1]

    def close(self) -> None:
        self._client = None

    def throughput(self, turn: Turn, concurrency: int, tasks: int) -> Throughput:
        if self._client is not None:
            self._client.call("stop")
            self._client.stop()
        environment = {
            "TS_SOCKET": str(turn.directory / f"tsp-{concurrency}"),
            "TS_SLOTS": str(concurrency),
            "TMPDIR": str(turn.directory),
        }
        client = self._client = turn.side([sys.executable, self.directory / "client.py", self.program], environment)
        client.call("enqueue", count=tasks)
        cpu, began = cpu_seconds(), time.perf_counter()
        client.call("drain")
        return Throughput(tasks, time.perf_counter() - began, cpu_seconds() - cpu)

    def latency(self, turn: Turn, count: int) -> Times | None:
        assert self._client is not None
        return Times.of(self._client.call("latency", count=count))

    def cancel(self, turn: Turn, count: int) -> Times | Survives | None:
        assert self._client is not None
        return cancel_times(self._client, turn.directory, count)
