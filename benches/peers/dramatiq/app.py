"""The task, the broker and the results."""

from __future__ import annotations

import os
import subprocess

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

url = os.environ["PEER_URL"]
broker = RedisBroker(url=f"{url}/0")
broker.add_middleware(Results(backend=RedisBackend(url=f"{url}/1")))
dramatiq.set_broker(broker)


@dramatiq.actor(store_results=True)
def command(words: list[str]) -> int:
    return subprocess.run(words).returncode
