"""What a peer is: how it is installed, what it promises, and how each figure is taken from it.

A peer's `peer.py` has a subclass of `Peer` named `This`. `QueuePeer` is for those with a server, workers and a client
(`Side`): it only has to say how to start them and how to count finished tasks.
"""

from __future__ import annotations

import argparse
import subprocess
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from .install import Cache
from .processes import BenchError, Daemon, Side, cpu_seconds, wait_until
from .turn import PACKAGE, Survives, Throughput, Times, Turn, cancel_times


@dataclass(frozen=True)
class Guarantees:
    """What a user gets besides the speed; short texts for the table."""

    queue: str
    outcome: str
    output: str
    descendants: str


class Peer(ABC):
    """A figure that a peer doesn't have is `None`."""

    name: ClassVar[str]
    setup: ClassVar[str]
    guarantees: ClassVar[Guarantees]
    # The part of --tasks that it gets, so that each turn takes about as long.
    share: ClassVar[float] = 1.0
    # Likewise for tasks one by one, and for cancels.
    latency_share: ClassVar[float] = 1.0
    cancel_share: ClassVar[float] = 1.0

    @property
    def directory(self) -> Path:
        return PACKAGE / self.name

    def configure(self, options: argparse.Namespace) -> None:
        """Takes what it needs from the command line."""

    @abstractmethod
    def install(self, cache: Cache) -> str:
        """Installs it and returns its version, with that of its server."""

    def open(self, turn: Turn) -> None:
        """Starts what a turn needs before its first figure."""

    def close(self) -> None:
        """Lets go of what `open` holds; the turn ends the processes."""

    @abstractmethod
    def throughput(self, turn: Turn, concurrency: int, tasks: int) -> Throughput:
        """Runs /bin/true `tasks` times, at most `concurrency` at once."""

    def latency(self, turn: Turn, count: int) -> Times | None:
        """Seconds from submit to the outcome known, of tasks one by one."""
        return None

    def output(self, turn: Turn, size: int, sha256: str) -> float | None:
        """Seconds until a reader has all of a task's output, byte for byte."""
        return None

    def cancel(self, turn: Turn, count: int) -> Times | Survives | None:
        """Seconds from the cancel to the death of the task's process."""
        return None


class ToolPeer(Peer):
    """A program that runs a command for each line of stdin, and ends. No server, no queue; its whole run counts."""

    @abstractmethod
    def command(self, concurrency: int) -> list[str | Path]:
        """Runs /bin/true for each line of stdin."""

    def throughput(self, turn: Turn, concurrency: int, tasks: int) -> Throughput:
        lines = "".join(f"{number}\n" for number in range(tasks))
        command = [str(word) for word in self.command(concurrency)]
        cpu, began = cpu_seconds(), time.perf_counter()
        subprocess.run(command, input=lines, text=True, check=True, cwd=turn.directory, env=turn.environment)
        return Throughput(tasks, time.perf_counter() - began, cpu_seconds() - cpu)


class QueuePeer(Peer):
    """A queue with workers. The backlog is queued first; then workers start, and the first fifth warms them up."""

    _client: Side | None = None
    _worker: Daemon | None = None
    # Tasks of backlogs in this turn, for peers that only say how many are left.
    enqueued: int = 0
    knows_outcome: ClassVar[bool] = True
    cancels: ClassVar[bool] = False
    returns_output: ClassVar[bool] = False

    @abstractmethod
    def client(self, turn: Turn) -> Side:
        """Starts the client."""

    @abstractmethod
    def worker(self, turn: Turn, concurrency: int) -> Daemon:
        """Starts workers that run `concurrency` tasks at once."""

    @abstractmethod
    def finished(self) -> int:
        """How many tasks have ended in this turn. Cheap: it is asked often."""

    def close(self) -> None:
        self._client = self._worker = None
        self.enqueued = 0

    def throughput(self, turn: Turn, concurrency: int, tasks: int) -> Throughput:
        client = self._client = self._client or self.client(turn)
        if self._worker is not None:
            turn.end(self._worker)
        before = self.finished()
        client.call("enqueue", count=tasks)
        self.enqueued += tasks
        self._worker = self.worker(turn, concurrency)
        first, began, cpu_began = self._reach(turn, before + tasks // 5)
        last, ended, cpu_ended = self._reach(turn, before + tasks)
        return Throughput(last - first, ended - began, cpu_ended - cpu_began)

    def _reach(self, turn: Turn, count: int) -> tuple[int, float, float]:
        seen = 0

        def reached() -> bool:
            nonlocal seen
            seen = self.finished()
            if seen < count:
                turn.check()
            return seen >= count

        wait_until(reached, f"{self.name} has finished {count} tasks", 120)
        at = time.perf_counter()
        return seen, at, cpu_seconds()

    def latency(self, turn: Turn, count: int) -> Times | None:
        if not self.knows_outcome:
            return None
        assert self._client is not None
        self._client.call("latency", count=max(count // 10, 2))
        return Times.of(self._client.call("latency", count=count))

    def output(self, turn: Turn, size: int, sha256: str) -> float | None:
        if not self.returns_output:
            return None
        assert self._client is not None
        answer = self._client.call("output", size=size)
        if answer["sha256"] != sha256:
            raise BenchError(f"{self.name}: the output that was read is not what was written")
        return float(answer["seconds"])

    def cancel(self, turn: Turn, count: int) -> Times | Survives | None:
        if not self.cancels:
            return None
        assert self._client is not None
        return cancel_times(self._client, turn.directory, count)
