"""The tables (Markdown) and the JSON file of a run."""

from __future__ import annotations

import datetime
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .peer import Peer
from .rounds import Record, Sizes, summary

MISSING = "—"


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in info if line.startswith("model name")), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 2**30, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


class Report:
    def __init__(self, peers: Sequence[Peer], versions: Mapping[str, str], sizes: Sizes) -> None:
        self.peers, self.versions, self.sizes = peers, versions, sizes
        self.rounds = 0
        self.date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self.records: list[Record] = []

    def json(self) -> str:
        document = {
            "date": self.date,
            "machine": machine(),
            "rounds": self.rounds,
            "sizes": asdict(self.sizes),
            "peers": {
                peer.name: {
                    "version": self.versions[peer.name],
                    "setup": peer.setup,
                    "guarantees": asdict(peer.guarantees),
                    "median": summary(self._of(peer)),
                    "rounds": [asdict(record) for record in self._of(peer)],
                }
                for peer in self.peers
            },
        }
        return json.dumps(document, indent=1)

    def _of(self, peer: Peer) -> list[Record]:
        return [record for record in self.records if record.peer == peer.name]

    def markdown(self) -> str:
        return "\n".join([*self._head(), "", *self._figures(), "", *self._promises(), ""])

    def _head(self) -> list[str]:
        host, limit = machine(), summary(self.records)
        return [
            f"{self.date[:10]}; {host['cores']} cores of {host['cpu']}, {host['memory_gib']} GiB, "
            f"Linux {host['kernel']}; medians of {self.rounds} rounds.",
            f"Limits: {limit['limits.spawns_per_s']:,.0f} spawns/s on all cores, "
            f"of {limit['limits.cpu_ms_per_spawn']:.2f} ms CPU each; "
            f"{limit['limits.spawn_s'] * 1000:.2f} ms for one spawn; "
            f"{limit['limits.pipe_bytes_per_s'] / 1e6:,.0f} MB/s through a pipe.",
        ]

    def _figures(self) -> list[str]:
        columns = [f"tasks/s at {count}, of the limit" for count in self.sizes.concurrency]
        megabytes = f"{self.sizes.output / 1e6:.0f} MB"
        last = self.sizes.concurrency[-1]
        head = [
            "peer", *columns, f"CPU at {last}, × a spawn's (ms/task)", "submit → outcome p50 / p99, × spawn (ms)",
            f"{megabytes} to a reader, of the pipe (MB/s)", "cancel → dead p50 / p99, ms",
        ]  # fmt: skip
        found = {peer.name: summary(self._of(peer)) for peer in self.peers}
        key = f"throughput.{last}.of_limit"
        order = sorted(self.peers, key=lambda peer: -found[peer.name].get(key, 0))
        return _table(head, [self._row(peer, found[peer.name]) for peer in order])

    def _row(self, peer: Peer, figures: Mapping[str, Any]) -> list[str]:
        cells = [peer.name]
        for count in self.sizes.concurrency:
            rate = f"throughput.{count}"
            cells.append(_cell(figures, "{:.2f} ({:,.0f}/s)", f"{rate}.of_limit", f"{rate}.tasks_per_s"))
        last = f"throughput.{self.sizes.concurrency[-1]}"
        cells.append(_cell(figures, "{:.1f} ({:.2f})", f"{last}.cpu_x", f"{last}.cpu_ms_per_task"))
        latency = ("latency.p50_x", "latency.p99_x", "latency.p50", "latency.p99")
        cells.append(_cell(figures, "{:.1f} / {:.1f} ({:.2f} / {:.2f})", *latency, milliseconds=2))
        cells.append(_cell(figures, "{:.2f} ({:,.0f})", "output.of_limit", "output.bytes_per_s", megabytes=1))
        if figures.get("cancel") == "survives":
            cells.append("it survives")
        else:
            cells.append(_cell(figures, "{:.2f} / {:.2f}", "cancel.p50", "cancel.p99", milliseconds=2))
        return cells

    def _promises(self) -> list[str]:
        head = ["peer", "version", "set-up", "queue", "outcome", "output", "a task's descendants at its end"]
        rows = []
        for peer in self.peers:
            promise = peer.guarantees
            kept = [promise.queue, promise.outcome, promise.output, promise.descendants]
            rows.append([peer.name, self.versions[peer.name], peer.setup, *kept])
        return _table(head, rows)


def _cell(figures: Mapping[str, Any], form: str, *keys: str, milliseconds: int = 0, megabytes: int = 0) -> str:
    """The values of `keys`; the last ones are scaled from seconds or bytes a second."""
    if not all(key in figures for key in keys):
        return MISSING
    values = [figures[key] for key in keys]
    for place in range(1, milliseconds + 1):
        values[-place] *= 1e3
    for place in range(1, megabytes + 1):
        values[-place] /= 1e6
    return form.format(*values)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines]
