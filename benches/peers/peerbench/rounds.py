"""Rounds: in each, every peer has its turn, and the machine's limits are measured before and after it.

A figure of a round is a ratio to the limits around its own turn; what is reported is the median of the rounds. So a
slow minute of the machine slows both sides of a ratio.
"""

from __future__ import annotations

import contextlib
import fcntl
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from . import limits
from .limits import Limits
from .peer import Peer
from .processes import BenchError, end_descendants
from .turn import Survives, Throughput, Turn


@dataclass(frozen=True)
class Sizes:
    """How much of everything a turn does."""

    tasks: int
    concurrency: tuple[int, ...]
    latencies: int
    output: int
    cancels: int
    limit_spawns: int


@dataclass
class Record:
    """One peer's turn in one round, as it goes into the JSON file. Times are in seconds."""

    peer: str
    round: int
    limits: dict[str, float] = field(default_factory=dict)
    throughput: dict[str, dict[str, float]] = field(default_factory=dict)
    latency: dict[str, float] | None = None
    output: dict[str, float] | None = None
    cancel: dict[str, float] | str | None = None
    error: str | None = None


class Rounds:
    def __init__(self, sizes: Sizes, limit: Path, lock: Path | None, scratch: Path) -> None:
        self.sizes, self.limit, self.lock, self.scratch = sizes, limit, lock, scratch
        self.digest = limits.digest(limit, sizes.output)

    def turn(self, peer: Peer, number: int) -> Record:
        """Runs one turn; whatever it starts has ended when this returns."""
        record = Record(peer.name, number)
        with self._locked(), tempfile.TemporaryDirectory(prefix="peerbench-", dir=self.scratch) as directory:
            turn = Turn(Path(directory), self.limit, peer.directory)
            before = self._limits()
            try:
                peer.open(turn)
                self._measure(peer, turn, record)
            except (BenchError, OSError, ValueError, subprocess.SubprocessError) as error:
                record.error = f"{type(error).__name__}: {error}"
                print(f"  {peer.name}: {record.error}", file=sys.stderr, flush=True)
            finally:
                peer.close()
                turn.close()
                end_descendants()
            self._as_ratios(record, before.mean(self._limits()))
        return record

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        if self.lock is None:
            yield
            return
        with self.lock.open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _limits(self) -> Limits:
        return limits.measure(self.limit, self.sizes.limit_spawns, self.sizes.latencies, self.sizes.output)

    def _measure(self, peer: Peer, turn: Turn, record: Record) -> None:
        sizes = self.sizes
        for concurrency in sizes.concurrency:
            tasks = max(int(sizes.tasks * peer.share), 5 * concurrency)
            done = peer.throughput(turn, concurrency, tasks)
            record.throughput[str(concurrency)] = _throughput(done)
        times = peer.latency(turn, max(int(sizes.latencies * peer.latency_share), 3))
        record.latency = None if times is None else asdict(times)
        seconds = peer.output(turn, sizes.output, self.digest)
        record.output = None if seconds is None else {"bytes_per_s": sizes.output / seconds}
        cancelled = peer.cancel(turn, max(int(sizes.cancels * peer.cancel_share), 3))
        if isinstance(cancelled, Survives):
            record.cancel = "survives"
        elif cancelled is not None:
            record.cancel = asdict(cancelled)

    @staticmethod
    def _as_ratios(record: Record, limit: Limits) -> None:
        record.limits = asdict(limit)
        for figures in record.throughput.values():
            figures["of_limit"] = figures["tasks_per_s"] / limit.spawns_per_s
            figures["cpu_x"] = figures["cpu_ms_per_task"] / limit.cpu_ms_per_spawn
        if record.latency is not None:
            record.latency |= {f"{name}_x": value / limit.spawn_s for name, value in record.latency.items()}
        if record.output is not None:
            record.output["of_limit"] = record.output["bytes_per_s"] / limit.pipe_bytes_per_s


def _throughput(done: Throughput) -> dict[str, float]:
    return {
        "tasks": done.tasks,
        "tasks_per_s": done.tasks / done.seconds,
        "cpu_ms_per_task": done.cpu / done.tasks * 1000,
    }


def summary(records: list[Record]) -> dict[str, Any]:
    """The medians of the rounds, figure by figure; a figure that no round has is missing."""
    numbers: dict[str, list[float]] = {}
    for record in records:
        for path, value in _leaves({key: value for key, value in asdict(record).items() if key not in _NOT_FIGURES}):
            numbers.setdefault(path, []).append(value)
    found: dict[str, Any] = {path: statistics.median(values) for path, values in numbers.items()}
    if any(record.cancel == "survives" for record in records):
        found["cancel"] = "survives"
    return found


_NOT_FIGURES = ("peer", "round", "error")


def _leaves(tree: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        elif isinstance(value, int | float):
            yield f"{prefix}{key}", value
