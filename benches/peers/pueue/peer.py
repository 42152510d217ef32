"""pueue: a daemon for a user's long tasks, and a command line client. Tasks run in a shell; its state is a file.

The backlog is queued while its group is paused. How many tasks have ended is asked with `pueue status --json`, ten
times a second. One task at a time is `pueue add` and `pueue wait`, which looks every two seconds.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from peerbench.install import Cache, output
from peerbench.peer import Guarantees, Peer
from peerbench.processes import Side, cpu_seconds, wait_until
from peerbench.turn import Survives, Throughput, Times, Turn, cancel_times


class This(Peer):
    name = "pueue"
    setup = "`pueued`; `pueue parallel N`, `pueue add`"
    guarantees = Guarantees("a file of its daemon", "a file of its daemon", "a file, readable live", "left")
    share = 0.02
    latency_share = 0.01
    cancel_share = 0.25
    _client: Side

    def install(self, cache: Cache) -> str:
        self.bin = cache.cargo_install("pueue", "4.0.4")
        return output([self.bin / "pueue", "--version"]).split()[-1]

    def open(self, turn: Turn) -> None:
        config = turn.directory / "pueue.yml"
        config.write_text(_config(turn.directory))
        turn.daemon([self.bin / "pueued", "--config", config])
        wait_until((turn.directory / "pueue.socket").exists, "pueued listens")
        self._client = turn.side([sys.executable, self.directory / "client.py", self.bin / "pueue", config])
        self._finished = 0

    def throughput(self, turn: Turn, concurrency: int, tasks: int) -> Throughput:
        self._client.call("enqueue", count=tasks, concurrency=concurrency)
        cpu, began = cpu_seconds(), time.perf_counter()
        self._client.call("start")
        self._finished += tasks
        wait_until(lambda: self._client.call("finished") >= self._finished, "pueue has finished", 120, every=0.1)
        return Throughput(tasks, time.perf_counter() - began, cpu_seconds() - cpu)

    def latency(self, turn: Turn, count: int) -> Times | None:
        return Times.of(self._client.call("latency", count=count))

    def cancel(self, turn: Turn, count: int) -> Times | Survives | None:
        return cancel_times(self._client, turn.directory, count)


def _config(directory: Path) -> str:
    return f"""\
client: {{}}
daemon: {{}}
shared:
  pueue_directory: {directory}
  runtime_directory: {directory}
  unix_socket_path: {directory}/pueue.socket
"""
