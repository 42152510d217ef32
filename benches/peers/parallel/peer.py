"""GNU parallel from Debian: groups the output of each task in files and prints it when the task has ended.

`--will-cite` only silences a notice. Output of one task is taken with `--line-buffer`, which shows it while the task
runs.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from pathlib import Path

from peerbench.install import Cache, output
from peerbench.peer import Guarantees, ToolPeer
from peerbench.processes import BenchError
from peerbench.turn import Turn


class This(ToolPeer):
    name = "parallel"
    setup = "`parallel -j N /bin/true`, an argument for each task; output with `--line-buffer`"
    guarantees = Guarantees("none", "one exit code for all", "on stdout, whole lines", "left")
    share = 0.2

    def install(self, cache: Cache) -> str:
        self.path = cache.debian("parallel", "parallel=20221122") / "usr/bin/parallel"
        return output([self.path, "--version"]).splitlines()[0].split()[-1]

    def command(self, concurrency: int) -> list[str | Path]:
        return [self.path, "--will-cite", "-j", str(concurrency), "/bin/true"]

    def output(self, turn: Turn, size: int, sha256: str) -> float | None:
        command = [self.path, "--will-cite", "--line-buffer", "-j1", turn.limit, "produce", ":::", str(size)]
        buffer = bytearray(size + 1)
        began, filled = time.perf_counter(), 0
        words = [str(word) for word in command]
        with subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, bufsize=0) as process:
            assert process.stdout is not None
            while got := os.readv(process.stdout.fileno(), [memoryview(buffer)[filled:]]):
                filled += got
        seconds = time.perf_counter() - began
        if hashlib.sha256(memoryview(buffer)[:filled]).hexdigest() != sha256:
            raise BenchError("parallel: the output that was read is not what was written")
        return seconds
