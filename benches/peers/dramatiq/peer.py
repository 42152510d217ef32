"""dramatiq on Redis: N worker processes with one thread each, results in Redis. Messages are acked after the run.

It has no cancel of a running message of its own.
"""

from __future__ import annotations

from peerbench.install import Cache
from peerbench.peer import Guarantees
from peerbench.processes import Daemon, Side
from peerbench.served import RedisPeer
from peerbench.turn import Turn


class This(RedisPeer):
    name = "dramatiq"
    setup = "`dramatiq -p N -t 1`, results in Redis; `subprocess.run`"
    guarantees = Guarantees("Redis AOF, 1 s; ack after the run", "10 min", "not kept", "left")
    share = 0.2

    def install(self, cache: Cache) -> str:
        self.bin = cache.python("dramatiq", (self.directory / "requirements.txt").read_text())
        return f"2.2.1, {self.install_redis(cache)}"

    def client(self, turn: Turn) -> Side:
        return turn.side([self.bin / "python", self.directory / "client.py"], {"PEER_URL": self.redis.url})

    def worker(self, turn: Turn, concurrency: int) -> Daemon:
        options = ["--processes", str(concurrency), "--threads", "1"]
        return turn.daemon([self.bin / "dramatiq", "app", *options], {"PEER_URL": self.redis.url})

    def finished(self) -> int:
        return self.redis.keys(database=1)
