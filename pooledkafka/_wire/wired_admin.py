"""kafka-python's admin client over a pool's engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kafka import KafkaAdminClient

from pooledkafka._wire.admin_facade import AdminFacade
from pooledkafka._wire.engine import Engine

__all__ = ["WiredAdmin"]


class WiredAdmin:
    """A ``KafkaAdminClient`` on the pool's connections; its calls may come from any thread."""

    def __init__(self, engine: Engine, options: Mapping[str, Any]) -> None:
        self._engine = engine

        def facade(**config: Any) -> AdminFacade:
            self._facade = AdminFacade(engine, config["request_timeout_ms"])
            return self._facade

        self.kafka = KafkaAdminClient(**{**options, "kafka_client": facade})

    @property
    def ended(self) -> bool:
        """Whether the connections under it are gone for good."""
        return bool(self._engine.net._closed)

    def drop(self, then: Callable[[], None]) -> None:
        """Detach in the background, then call ``then`` on the I/O thread. For finalizers."""

        def leave() -> None:
            self._facade.leave()
            then()

        self._engine.soon(leave)

    def close(self) -> None:
        """Detach."""
        self.kafka.close()
