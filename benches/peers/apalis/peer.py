"""apalis with its NATS JetStream backend (this directory's Rust program): durable pull consumer, ack after the run.

It keeps neither output nor outcome, so there is nothing that a submitter could wait for, and it has no cancel.
"""

from __future__ import annotations

from peerbench.install import Cache
from peerbench.peer import Guarantees
from peerbench.processes import Daemon, Side
from peerbench.served import NatsPeer
from peerbench.turn import Turn


class This(NatsPeer):
    name = "apalis"
    setup = "one worker process, N tasks at once; durable pull consumer; tokio subprocess"
    guarantees = Guarantees("durable, ack after the run", "not kept", "not kept", "left")
    knows_outcome = False

    def install(self, cache: Cache) -> str:
        server = self.install_nats(cache)
        self.program = cache.cargo_build(self.directory)
        return f"1.0.0, apalis-nats 0.1.0, {server}"

    def client(self, turn: Turn) -> Side:
        return turn.side([self.program, "client", self.nats.url])

    def worker(self, turn: Turn, concurrency: int) -> Daemon:
        return turn.daemon([self.program, "worker", self.nats.url, str(concurrency)])

    def finished(self) -> int:
        consumer = self.nats.request("$JS.API.CONSUMER.INFO.tasks.tasks-queue")
        # Acked without a gap from the first on; there is no consumer before the first backlog.
        return int(consumer.get("ack_floor", {}).get("stream_seq", 0))
