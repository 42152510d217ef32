"""RQ on Redis: a pool of N workers of the default class, each of which forks a "work horse" for every job.

That class is the recommended one: it survives what a job does to its process, and only it can stop a running job. (The
class without the fork, `SimpleWorker`, is meant for tests.) A stop kills the work horse's process group.
"""

from __future__ import annotations

from peerbench.install import Cache
from peerbench.peer import Guarantees
from peerbench.processes import Daemon, Side
from peerbench.served import RedisPeer
from peerbench.turn import Turn


class This(RedisPeer):
    name = "rq"
    setup = "`rq worker-pool -n N`, default workers; `subprocess.run`"
    guarantees = Guarantees("Redis AOF, 1 s", "500 s", "not kept", "left; with a stop its process group is killed")
    share = 0.06
    latency_share = 0.5
    cancels = True

    def install(self, cache: Cache) -> str:
        self.bin = cache.python("rq", (self.directory / "requirements.txt").read_text())
        return f"3.0.0, {self.install_redis(cache)}"

    def client(self, turn: Turn) -> Side:
        return turn.side([self.bin / "python", self.directory / "client.py"], {"PEER_URL": self.redis.url})

    def worker(self, turn: Turn, concurrency: int) -> Daemon:
        options = ["--quiet", "--logging-level", "WARNING", "--url", self.redis.url]
        return turn.daemon([self.bin / "rq", "worker-pool", "--num-workers", str(concurrency), *options])

    def finished(self) -> int:
        return self.redis.integer("ZCARD", "rq:finished:default")
