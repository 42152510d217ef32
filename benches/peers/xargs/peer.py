"""xargs -P: the plain tool. It queues nothing, stores nothing and knows one exit code for all.

One process for each line (`-n 1`), and nothing else between its fork and exec: as fast as a loop with forks can be.
"""

from __future__ import annotations

from pathlib import Path

from peerbench.install import Cache, on_path, output
from peerbench.peer import Guarantees, ToolPeer


class This(ToolPeer):
    name = "xargs"
    setup = "`xargs -n 1 -P N /bin/true`, a line for each task"
    guarantees = Guarantees("none", "one exit code for all", "mixed on stdout", "left")

    def install(self, cache: Cache) -> str:
        self.path = on_path("xargs")
        return output([self.path, "--version"]).splitlines()[0].split()[-1]

    def command(self, concurrency: int) -> list[str | Path]:
        return [self.path, "-n", "1", "-P", str(concurrency), "/bin/true"]
