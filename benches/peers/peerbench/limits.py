"""The machine's own limits, measured before and after each peer's turn by `limit.c`."""

from __future__ import annotations

import hashlib
import os
import statistics
import subprocess
from dataclasses import astuple, dataclass
from pathlib import Path

from .install import output
from .processes import BenchError, cpu_seconds


@dataclass(frozen=True)
class Limits:
    """Without any queue: spawns a second on all cores and the CPU time of each, one spawn at a time, and a pipe."""

    spawns_per_s: float
    cpu_ms_per_spawn: float
    spawn_s: float
    pipe_bytes_per_s: float

    def mean(self, other: Limits) -> Limits:
        pairs = zip(astuple(self), astuple(other), strict=True)
        return Limits(*(statistics.fmean(pair) for pair in pairs))


def measure(limit: Path, spawns: int, latencies: int, size: int) -> Limits:
    numbers = _numbers(limit, "latency", str(latencies))
    cpu = cpu_seconds()
    (spawned,) = _numbers(limit, "spawn", str(spawns), str(os.cpu_count()))
    cpu = cpu_seconds() - cpu
    (copied,) = _numbers(limit, "pipe", str(size))
    return Limits(
        spawns_per_s=spawns / spawned * 1e9,
        cpu_ms_per_spawn=cpu / spawns * 1000,
        spawn_s=statistics.median(numbers) / 1e9,
        pipe_bytes_per_s=size / copied * 1e9,
    )


def _numbers(limit: Path, *arguments: str) -> list[int]:
    lines = output([limit, *arguments]).splitlines()
    if not all(line.isdigit() for line in lines):
        raise BenchError(f"limit {arguments}: {lines[:3]}")
    return [int(line) for line in lines]


def digest(limit: Path, size: int) -> str:
    """SHA-256 of what `limit produce` writes."""
    produced = subprocess.run([limit, "produce", str(size)], stdout=subprocess.PIPE, check=True)
    return hashlib.sha256(produced.stdout).hexdigest()
