"""The servers that peers need, fresh for each turn: redis-server and nats-server, and a few words of their protocols.

Both are set up as durable ones: Redis with its append-only file, synced every second, as its documentation
recommends; nats-server with file storage and its default sync. Each listens on a free loopback port.
"""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

from .install import NATS_SERVER, Cache, on_path, output
from .processes import BenchError, wait_until

_REDIS = (
    "redis-server=7.0.15", "redis-tools=7.0.15", "libhiredis0.14", "libjemalloc2", "liblua5.1-0", "liblzf1",
    "lua-bitop", "lua-cjson",
)  # fmt: skip


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=60)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


class RedisProgram:
    """Where redis-server is: on PATH, or Debian's, unpacked into the cache."""

    def __init__(self, cache: Cache) -> None:
        self.environment = dict(os.environ)
        try:
            self.path = on_path("redis-server")
        except BenchError:
            root = cache.debian("redis", *_REDIS)
            self.path = root / "usr/bin/redis-server"
            libraries = [path for path in (root / "usr/lib").glob("*-linux-gnu*")]
            self.environment["LD_LIBRARY_PATH"] = ":".join(map(str, libraries))
        self.version = output([self.path, "--version"], env=self.environment).split("v=")[1].split()[0]

    def command(self, port: int, directory: Path) -> list[str | Path]:
        durable = ["--appendonly", "yes", "--appendfsync", "everysec", "--save", ""]
        return [self.path, "--bind", "127.0.0.1", "--port", str(port), "--dir", directory, *durable]


class Redis:
    """A connection that sends one command at a time."""

    def __init__(self, port: int) -> None:
        self.url = f"redis://127.0.0.1:{port}"
        wait_until(lambda: _answers(port), "redis-server listens")
        self._socket = _connect(port)
        self._lines = self._socket.makefile("rb")

    def integer(self, *words: str) -> int:
        """Sends a command whose answer is an integer (or a text of one; nil is 0)."""
        parts = b"".join(b"$%d\r\n%s\r\n" % (len(word.encode()), word.encode()) for word in words)
        self._socket.sendall(b"*%d\r\n" % len(words) + parts)
        line = self._lines.readline().strip()
        if line.startswith(b"$") and line != b"$-1":
            return int(self._lines.readline())
        if not line.startswith((b":", b"$")):
            raise BenchError(f"redis-server answered {line!r} to {words}")
        return 0 if line == b"$-1" else int(line[1:])

    def keys(self, database: int) -> int:
        """How many keys a database has."""
        self._socket.sendall(b"SELECT %d\r\n" % database)
        self._lines.readline()
        return self.integer("DBSIZE")

    def close(self) -> None:
        self._lines.close()
        self._socket.close()


def _half_the_cores() -> int:
    return (len(os.sched_getaffinity(0)) + 1) // 2


class NatsProgram:
    """The pinned nats-server from PyPI: the same for every peer that uses NATS.

    It uses half of the cores at a time, unless GOMAXPROCS is set, as the one that `runlane bench` starts.
    """

    def __init__(self, cache: Cache) -> None:
        self.environment = {"GOMAXPROCS": os.environ.get("GOMAXPROCS", str(_half_the_cores()))}
        self.path = cache.python("nats-server", NATS_SERVER) / "nats-server"
        self.version = output([self.path, "--version"]).split("v")[-1]

    def command(self, port: int, directory: Path) -> list[str | Path]:
        config = directory / "nats-server.conf"
        config.write_text(
            f'host: "127.0.0.1"\nport: {port}\nmax_payload: 8388608\njetstream {{ store_dir: "{directory}/store" }}\n'
        )
        return [self.path, "-c", config]


class Nats:
    """A connection for single requests."""

    def __init__(self, port: int) -> None:
        self.url = f"nats://127.0.0.1:{port}"
        wait_until(lambda: _answers(port), "nats-server listens")
        self._socket = _connect(port)
        self._lines = self._socket.makefile("rb")
        self._lines.readline()
        self._socket.sendall(b'CONNECT {"verbose":false,"pedantic":false}\r\nSUB _INBOX.peerbench 1\r\n')
        wait_until(lambda: "error" not in self.request("$JS.API.INFO"), "JetStream is ready")

    def request(self, subject: str, body: bytes = b"") -> dict[str, Any]:
        """Sends a request and returns the JSON object that answers it."""
        self._socket.sendall(b"PUB %s _INBOX.peerbench %d\r\n%s\r\n" % (subject.encode(), len(body), body))
        while True:
            words = self._lines.readline().split()
            match words[:1]:
                case [b"MSG"]:
                    answer: dict[str, Any] = json.loads(self._lines.read(int(words[-1]) + 2))
                    return answer
                case [b"HMSG"]:  # Only "no responders" comes with headers here.
                    self._lines.read(int(words[-1]) + 2)
                    return {"error": "no responders"}
                case [b"PING"]:
                    self._socket.sendall(b"PONG\r\n")
                case [b"-ERR"] | []:
                    raise BenchError(f"nats-server answered {words} to {subject}")

    def messages(self, stream: str) -> int:
        """How many messages a stream has; none if it isn't there."""
        return int(self.request(f"$JS.API.STREAM.INFO.{stream}").get("state", {}).get("messages", 0))

    def close(self) -> None:
        self._lines.close()
        self._socket.close()
