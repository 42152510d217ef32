"""BullMQ on Redis, with ioredis: as many worker processes as cores, each with its part of the concurrency.

Tasks start their command with `child_process.spawn`. Finished jobs are kept, the default. `Worker.cancelJob` only works
in the worker's own process, so there is no cancel for a client.
"""

from __future__ import annotations

import json
import os

from peerbench.install import Cache, on_path, output
from peerbench.peer import Guarantees
from peerbench.processes import Daemon, Side
from peerbench.served import RedisPeer
from peerbench.turn import Turn


class This(RedisPeer):
    name = "bullmq"
    setup = "W node processes, W = cores, concurrency N/W; `child_process.spawn`"
    guarantees = Guarantees("Redis AOF, 1 s; stalled jobs rerun", "stored", "not kept", "left")
    share = 0.2

    def install(self, cache: Cache) -> str:
        self.node = on_path("node")
        lock = self.directory / "package-lock.json"
        self.modules = cache.node("bullmq", lock)
        pinned = json.loads(lock.read_text())["packages"]["node_modules/bullmq"]["version"]
        return f"{pinned}, node {output([self.node, '--version'])}, {self.install_redis(cache)}"

    def client(self, turn: Turn) -> Side:
        return turn.side([self.node, self.directory / "client.mjs", self._port], {"PEER_MODULES": str(self.modules)})

    def worker(self, turn: Turn, concurrency: int) -> Daemon:
        processes = min(os.cpu_count() or 1, concurrency)
        numbers = [self._port, str(processes), str(concurrency // processes)]
        environment = {"PEER_MODULES": str(self.modules)}
        return turn.daemon([self.node, self.directory / "worker.mjs", *numbers], environment)

    def finished(self) -> int:
        return self.redis.integer("ZCARD", "bull:peer:completed")

    @property
    def _port(self) -> str:
        return self.redis.url.rpartition(":")[2]
