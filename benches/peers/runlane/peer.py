"""runlane itself, measured by its own `runlane bench`: the release program, every guarantee on, isolation `standard`.

Each scenario starts a nats-server with file storage (the same program as for the other NATS peers) and a worker, both
its own. Only the absolute figures are taken from it; the ratios are made here, with the limits of this run.
"""

from __future__ import annotations

import argparse
import json
import subprocess
from typing import Any

from peerbench.install import Cache, output, run
from peerbench.peer import Guarantees, Peer
from peerbench.processes import BenchError
from peerbench.servers import NatsProgram
from peerbench.turn import PACKAGE, Survives, Throughput, Times, Turn

# The exit code for a command line that is wrong: an older program without the scenario.
_USAGE = 64


class This(Peer):
    name = "runlane"
    setup = "`runlane bench`: one worker with N places, isolation `standard`"
    guarantees = Guarantees(
        "durable, ack after the outcome", "exactly one, stored", "stored, readable live", "killed, daemons too"
    )

    def configure(self, options: argparse.Namespace) -> None:
        self.program = options.runlane.resolve()

    def install(self, cache: Cache) -> str:
        if not self.program.exists():
            repository = PACKAGE.parent.parent
            run(["cargo", "build", "--release", "--locked", "--manifest-path", repository / "Cargo.toml"])
        self.nats = NatsProgram(cache)
        return f"{output([self.program, '--version']).split()[-1]}, nats-server {self.nats.version}"

    def _bench(self, turn: Turn, scenario: str, *options: str) -> dict[str, Any] | None:
        """The report of one round; none if this program doesn't have the scenario."""
        common = ["--isolation", "standard", "--rounds", "1", "--nats-server", str(self.nats.path), "--json", "-"]
        command = [str(self.program), "bench", scenario, *options, *common]
        done = subprocess.run(command, cwd=turn.directory, env=turn.environment, capture_output=True, text=True)
        if done.returncode == _USAGE:
            return None
        if done.returncode != 0:
            raise BenchError(f"runlane bench {scenario}: {done.stderr[-600:]}")
        report: dict[str, Any] = json.loads(done.stdout)
        return report

    def throughput(self, turn: Turn, concurrency: int, tasks: int) -> Throughput:
        report = self._bench(turn, "throughput", "--concurrency", str(concurrency), "--tasks", str(tasks))
        if report is None:
            raise BenchError(f"{self.program} has no `bench throughput`")
        found = report["throughput"][0]
        seconds = tasks / found["tasksPerSecond"]["median"]
        return Throughput(tasks, seconds, found["cpuMsPerTask"]["total"]["median"] * tasks / 1000)

    def latency(self, turn: Turn, count: int) -> Times | None:
        report = self._bench(turn, "latency", "--tasks", str(count))
        if report is None:
            return None
        return _times(report["latency"], "outcomeP50Ms", "outcomeP99Ms")

    def output(self, turn: Turn, size: int, sha256: str) -> float | None:
        report = self._bench(turn, "output", "--megabytes", str(round(size / 1e6)))
        if report is None:
            return None
        if not report["output"]["byteIdentical"]:
            raise BenchError("runlane: the output that was read is not what was written")
        return size / 1e6 / float(report["output"]["zerosMegabytesPerSecond"]["median"])

    def cancel(self, turn: Turn, count: int) -> Times | Survives | None:
        report = self._bench(turn, "cancel", "--tasks", str(count))
        return None if report is None else _times(report["cancel"], "deadP50Ms", "deadP99Ms")


def _times(figures: dict[str, Any], p50: str, p99: str) -> Times:
    return Times(figures[p50]["median"] / 1000, figures[p99]["median"] / 1000)
