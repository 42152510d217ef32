"""A minimal durable JetStream worker (this directory's Rust program): the reference for what NATS itself costs.

Queue, output and outcomes are in file storage and each publish is confirmed, as in runlane. Without: start records,
leases, fencing, retries, cancel, isolation, and the end of a task's descendants. `src/main.rs` has the details.
"""

from __future__ import annotations

from peerbench.install import Cache
from peerbench.peer import Guarantees
from peerbench.processes import Daemon, Side
from peerbench.served import NatsPeer
from peerbench.turn import Turn


class This(NatsPeer):
    name = "minimal"
    setup = "one worker process, N tasks at once; pull consumer, prefetch 4 × N"
    guarantees = Guarantees("durable, ack after the outcome", "stored", "stored, readable live", "left")
    returns_output = True

    def install(self, cache: Cache) -> str:
        server = self.install_nats(cache)
        self.program = cache.cargo_build(self.directory)
        return f"async-nats 0.51.0, {server}"

    def client(self, turn: Turn) -> Side:
        return turn.side([self.program, "client", self.nats.url])

    def worker(self, turn: Turn, concurrency: int) -> Daemon:
        return turn.daemon([self.program, "worker", self.nats.url, str(concurrency)])

    def finished(self) -> int:
        return self.nats.messages("OUTCOMES")
