"""The machine's own limits, measured before and after each peer's turn by `limit.c`."""

from __future__ import annotations

import hashlib
import os
import statistics
import subprocess
from dataclasses import dataclass
from pathlib import Path

from .install import output
from .processes import BenchError


@dataclass(frozen=True)
class Limits:
    """Spawns a second of small processes on all cores; seconds of one spawn at a time; bytes a second of a pipe."""

    spawns: float
    spawn_seconds: float
    pipe: float

    def mean(self, other: Limits) -> Limits:
        return Limits(
            (self.spawns + other.spawns) / 2,
            (self.spawn_seconds + other.spawn_seconds) / 2,
            (self.pipe + other.pipe) / 2,
        )


def measure(limit: Path, spawns: int, latencies: int, size: int) -> Limits:
    numbers = _numbers(limit, "latency", str(latencies))
    spawned = _numbers(limit, "spawn", str(spawns), str(os.cpu_count()))
    copied = _numbers(limit, "pipe", str(size))
    return Limits(spawns / spawned[0] * 1e9, statistics.median(numbers) / 1e9, size / copied[0] * 1e9)


def _numbers(limit: Path, *arguments: str) -> list[int]:
    lines = output([limit, *arguments]).splitlines()
    if not all(line.isdigit() for line in lines):
        raise BenchError(f"limit {arguments}: {lines[:3]}")
    return [int(line) for line in lines]


def digest(limit: Path, size: int) -> str:
    """SHA-256 of what `limit produce` writes."""
    produced = subprocess.run([limit, "produce", str(size)], stdout=subprocess.PIPE, check=True)
    return hashlib.sha256(produced.stdout).hexdigest()
