"""Celery with Redis as broker and result backend; prefork pool, the recommended one for tasks that start processes.

Prefetch 64 as its guide recommends for short tasks, acks before the run (the default and the fast one: a task that runs
when its worker dies is lost), results kept, and no gossip, mingle or heartbeat between workers. A cancel is
`revoke(terminate=True)`, which ends the pool's process by SIGTERM; `subprocess.run` then kills its command, and what
that has started is left.
"""

from __future__ import annotations

from peerbench.install import Cache
from peerbench.peer import Guarantees
from peerbench.processes import Daemon, Side
from peerbench.served import RedisPeer
from peerbench.turn import Turn


class This(RedisPeer):
    name = "celery"
    setup = "prefork pool of N, prefetch 64, acks early; `subprocess.run`"
    guarantees = Guarantees("Redis AOF, 1 s; ack before the run", "stored", "as a result, after the end", "left")
    share = 0.2
    cancels = True
    cancel_share = 0.25
    returns_output = True

    def install(self, cache: Cache) -> str:
        self.bin = cache.python("celery", (self.directory / "requirements.txt").read_text())
        return f"5.7.0, {self.install_redis(cache)}"

    def client(self, turn: Turn) -> Side:
        return turn.side([self.bin / "python", self.directory / "client.py"], {"PEER_URL": self.redis.url})

    def worker(self, turn: Turn, concurrency: int) -> Daemon:
        options = ["--pool", "prefork", "--without-gossip", "--without-mingle", "--without-heartbeat"]
        numbers = ["--concurrency", str(concurrency), "--loglevel", "WARNING"]
        command = [str(self.bin / "celery"), "--app", "app", "worker", *numbers, *options]
        # Celery's own root check: task processes of a benchmark may run as root.
        return turn.daemon(command, {"PEER_URL": self.redis.url, "C_FORCE_ROOT": "1"})

    def finished(self) -> int:
        return self.redis.keys(database=1)
