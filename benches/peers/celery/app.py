"""The tasks and their settings."""

from __future__ import annotations

import os
import subprocess

from celery import Celery

url = os.environ["PEER_URL"]
app = Celery("peer", broker=f"{url}/0", backend=f"{url}/1")
app.conf.update(
    # For many short tasks: docs.celeryq.dev, "Optimizing", "Prefetch limits".
    worker_prefetch_multiplier=64,
    task_acks_late=False,
    # Bytes as a result need no base64 this way.
    accept_content=["json", "pickle"],
    result_serializer="pickle",
    broker_connection_retry_on_startup=True,
)


@app.task
def command(words: list[str]) -> int:
    return subprocess.run(words).returncode


@app.task
def output(words: list[str]) -> bytes:
    return subprocess.run(words, stdout=subprocess.PIPE).stdout
