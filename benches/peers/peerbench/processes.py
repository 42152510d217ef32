"""Processes of a turn: started in a process group of their own, counted by CPU time, ended by their ids.

Not in a session of their own: where the kernel groups sessions for scheduling (sched(7), "autogroup"), a peer of many
sessions would get a larger share of a busy machine than the limits do.

The benchmark is a *subreaper*: what a peer's daemons leave behind becomes its child, so everything that a turn
started stays in its process tree. CPU time is read from that tree, and the tree is what is ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

_PR_SET_CHILD_SUBREAPER = 36
_TICKS = os.sysconf("SC_CLK_TCK")
# Processes that have a `Popen`, which reaps them.
_ours: set[int] = set()


class BenchError(Exception):
    """Something that a peer needs doesn't work; the peer's turn is given up."""


def become_subreaper() -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")


def _stats() -> dict[int, tuple[int, float, str]]:
    """Parent, CPU seconds (reaped children included) and state of every process."""
    stats = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            text = Path("/proc", entry, "stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue
        # The name is in parentheses and may hold anything; proc_pid_stat(5).
        fields = text.rpartition(")")[2].split()
        stats[int(entry)] = (int(fields[1]), sum(map(int, fields[11:15])) / _TICKS, fields[0])
    return stats


def descendants() -> dict[int, tuple[float, str]]:
    """CPU seconds and state of every process below this one."""
    stats, found = _stats(), {}
    below = {os.getpid()}
    while below:
        below = {pid for pid, (parent, _, _) in stats.items() if parent in below}
        found.update({pid: stats[pid][1:] for pid in below})
    return found


def cpu_seconds() -> float:
    """CPU time of everything that this process ever started, now running or ended.

    What is running counts in whole ticks of 10 ms for each process, what was reaped exactly. So orphans are reaped
    first: a peer that leaves one for each task would seem to cost nothing.
    """
    for pid, (parent, _, state) in _stats().items():
        if parent == os.getpid() and state == "Z" and pid not in _ours:
            os.waitpid(pid, 0)
    reaped = resource.getrusage(resource.RUSAGE_CHILDREN)
    return reaped.ru_utime + reaped.ru_stime + sum(cpu for cpu, _ in descendants().values())


def end_descendants(patience: float = 5.0) -> None:
    """Ends everything below this process: SIGTERM, then SIGKILL after `patience` seconds."""
    for number, wait in ((signal.SIGTERM, patience), (signal.SIGKILL, patience)):
        for pid, (_, state) in descendants().items():
            if state != "Z":
                _signal(pid, number)
        deadline = time.monotonic() + wait
        while time.monotonic() < deadline:
            _reap_all()
            if not descendants():
                return
            time.sleep(0.01)
    raise BenchError(f"processes outlived SIGKILL: {sorted(descendants())}")


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _reap_all() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0] != 0:
            pass
    except ChildProcessError:
        pass


def wait_until(condition: Callable[[], bool], what: str, seconds: float = 30.0, every: float = 0.005) -> None:
    """Waits for a condition, or raises `BenchError` that names `what`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise BenchError(f"{what}: not within {seconds:.0f} s")
        time.sleep(every)


class Daemon:
    """A program of a peer that runs beside the measurement; what it says goes to a file."""

    def __init__(self, command: Sequence[str | Path], log: Path, cwd: Path, env: Mapping[str, str]) -> None:
        self.log, self.name = log, Path(command[0]).name
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [str(word) for word in command], cwd=cwd, env=dict(env), stdin=subprocess.DEVNULL,
                stdout=output, stderr=output, process_group=0,
            )  # fmt: skip
        _ours.add(self.process.pid)

    def stop(self, patience: float = 10.0) -> None:
        """SIGTERM, and SIGKILL after `patience` seconds."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def check(self) -> None:
        if self.process.poll() is not None:
            raise BenchError(f"{self.name} ended with {self.process.returncode}: {tail(self.log)}")


class Side:
    """A client of a peer in the peer's own language: one JSON request a line, one JSON answer a line."""

    def __init__(self, command: Sequence[str | Path], log: Path, cwd: Path, env: Mapping[str, str]) -> None:
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [str(word) for word in command], cwd=cwd, env=dict(env), stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=output, text=True, process_group=0,
            )  # fmt: skip
        _ours.add(self.process.pid)

    def call(self, verb: str, **arguments: Any) -> Any:
        self.send(verb, **arguments)
        return self.receive(verb)

    def send(self, verb: str, **arguments: Any) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"do": verb, **arguments}) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError as error:
            raise BenchError(f"the client ended: {tail(self.log)}") from error

    def receive(self, verb: str) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise BenchError(f"the client ended in {verb}: {tail(self.log)}")
        return json.loads(line)

    def stop(self) -> None:
        """Closes its input, which ends it."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(5)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def tail(log: Path, size: int = 600) -> str:
    return log.read_text(errors="replace")[-size:]
