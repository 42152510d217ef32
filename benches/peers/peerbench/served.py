"""Peers whose queue is in Redis or in NATS JetStream."""

from __future__ import annotations

from .install import Cache
from .peer import QueuePeer
from .servers import Nats, NatsProgram, Redis, RedisProgram, free_port
from .turn import Turn


class RedisPeer(QueuePeer):
    """A queue in Redis; see `servers`."""

    _program: RedisProgram
    redis: Redis

    def install_redis(self, cache: Cache) -> str:
        self._program = RedisProgram(cache)
        return f"Redis {self._program.version}"

    def open(self, turn: Turn) -> None:
        port = free_port()
        turn.daemon(self._program.command(port, turn.directory), self._program.environment)
        self.redis = Redis(port)

    def close(self) -> None:
        super().close()
        self.redis.close()


class NatsPeer(QueuePeer):
    """A queue in NATS JetStream; see `servers`."""

    _program: NatsProgram
    nats: Nats

    def install_nats(self, cache: Cache) -> str:
        self._program = NatsProgram(cache)
        return f"nats-server {self._program.version}"

    def open(self, turn: Turn) -> None:
        port = free_port()
        turn.daemon(self._program.command(port, turn.directory), self._program.environment)
        self.nats = Nats(port)

    def close(self) -> None:
        super().close()
        self.nats.close()
