"""One peer's turn in one round: its directory, its processes, and the figures that it gives."""

from __future__ import annotations

import os
import select
import signal
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .processes import Daemon, Side, wait_until

PACKAGE = Path(__file__).resolve().parent.parent
# A task that is alive this long after its cancel counts as one that survives it.
_PATIENCE = 3.0


@dataclass(frozen=True)
class Throughput:
    """`tasks` tasks took `seconds`, and `cpu` seconds of all processes of the peer, its server and its tasks."""

    tasks: int
    seconds: float
    cpu: float


@dataclass(frozen=True)
class Times:
    """Quantiles of times in seconds."""

    p50: float
    p99: float

    @staticmethod
    def of(times: list[float]) -> Times:
        ordered = sorted(times)
        return Times(statistics.median(ordered), ordered[-(-99 * len(ordered) // 100) - 1])


@dataclass(frozen=True)
class Survives:
    """The task's process was still alive seconds after the cancel."""


class Turn:
    def __init__(self, directory: Path, limit: Path, peer_directory: Path) -> None:
        self.directory = directory
        self.limit = limit
        self.peer_directory = peer_directory
        self.environment: dict[str, str] = {
            **os.environ,
            "PEERBENCH_LIMIT": str(limit),
            "PYTHONPATH": f"{PACKAGE}:{peer_directory}",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        self._running: list[Daemon | Side] = []
        self._started = 0

    def daemon(self, command: Sequence[str | Path], env: Mapping[str, str] | None = None) -> Daemon:
        """Starts a server or a worker."""
        daemon = Daemon(command, self._log(), self.directory, {**self.environment, **(env or {})})
        self._running.append(daemon)
        return daemon

    def side(self, command: Sequence[str | Path], env: Mapping[str, str] | None = None) -> Side:
        """Starts a client."""
        side = Side(command, self._log(), self.directory, {**self.environment, **(env or {})})
        self._running.append(side)
        return side

    def _log(self) -> Path:
        self._started += 1
        return self.directory / f"{self._started}.log"

    def check(self) -> None:
        """Raises `BenchError` if a server or a worker has ended."""
        for program in self._running:
            if isinstance(program, Daemon):
                program.check()

    def end(self, daemon: Daemon) -> None:
        daemon.stop()
        self._running.remove(daemon)

    def close(self) -> None:
        """Stops everything, the newest first: clients, workers, servers."""
        while self._running:
            self._running.pop().stop()


def cancel_times(client: Side, directory: Path, count: int) -> Times | Survives:
    """Seconds from the cancel to the death of the task's process, of tasks one by one."""
    times = []
    for number in range(count):
        file = directory / f"hold-{number}"
        client.call("hold", file=str(file))
        wait_until(file.exists, "the task that is to be cancelled runs", every=0.002)
        held = os.pidfd_open(int(file.read_text()))
        try:
            died = _time_of_death(client, held)
        finally:
            os.close(held)
        if died is None:
            return Survives()
        times.append(died)
    return Times.of(times)


def _time_of_death(client: Side, held: int) -> float | None:
    dead = select.poll()
    # A pidfd is readable when its process has ended; pidfd_open(2).
    dead.register(held, select.POLLIN)
    client.send("cancel")
    if dead.poll(_PATIENCE * 1000):
        died = time.monotonic_ns()
        return (died - int(client.receive("cancel"))) / 1e9
    signal.pidfd_send_signal(held, signal.SIGKILL)
    client.receive("cancel")
    return None
