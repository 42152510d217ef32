"""SAQ: an asyncio queue on Redis. Tasks start their command with asyncio's own subprocesses.

As many worker processes as cores (`--workers`), each with its part of the concurrency; hiredis as recommended; logs of
each job are off (`--quiet`). A job is taken from Redis before it runs and is swept back after its timeout. Aborts are
looked for once a second, the default.
"""

from __future__ import annotations

import os

from peerbench.install import Cache
from peerbench.peer import Guarantees
from peerbench.processes import Daemon, Side
from peerbench.served import RedisPeer
from peerbench.turn import Turn


class This(RedisPeer):
    name = "saq"
    setup = "`saq --workers W --quiet`, W = cores, N/W jobs in each; asyncio subprocess"
    guarantees = Guarantees("Redis AOF, 1 s", "10 min", "not kept", "left")
    share = 0.3
    cancels = True
    cancel_share = 0.25

    def install(self, cache: Cache) -> str:
        self.bin = cache.python("saq", (self.directory / "requirements.txt").read_text())
        return f"0.26.4, {self.install_redis(cache)}"

    def client(self, turn: Turn) -> Side:
        return turn.side([self.bin / "python", self.directory / "client.py"], {"PEER_URL": self.redis.url})

    def worker(self, turn: Turn, concurrency: int) -> Daemon:
        workers = min(os.cpu_count() or 1, concurrency)
        environment = {"PEER_URL": self.redis.url, "PEER_CONCURRENCY": str(concurrency // workers)}
        return turn.daemon([self.bin / "saq", "app.settings", "--workers", str(workers), "--quiet"], environment)

    def finished(self) -> int:
        return self.enqueued - self.redis.integer("ZCARD", "saq:default:incomplete")
