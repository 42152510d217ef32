"""The task and the worker's settings."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from saq import Queue

queue = Queue.from_url(os.environ["PEER_URL"])


async def startup(_: dict[str, Any]) -> None:
    """Python 3.11 waits for each child in a thread of its own, unless it is told to use pidfds, as 3.12 does."""
    if sys.version_info < (3, 12):
        watcher = asyncio.PidfdChildWatcher()
        watcher.attach_loop(asyncio.get_running_loop())
        asyncio.set_child_watcher(watcher)


async def command(context: dict[str, Any], *, words: list[str]) -> int:
    """Runs a command; if the job is aborted or times out, kills it."""
    process = await asyncio.create_subprocess_exec(*words)
    try:
        return await process.wait()
    finally:
        if process.returncode is None:
            process.kill()


settings = {
    "queue": queue,
    "functions": [command],
    "concurrency": int(os.environ.get("PEER_CONCURRENCY", "1")),
    "startup": startup,
}
