"""The KafkaProducers of a pool: one for each distinct setting, shared by all handles that have it."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any

from kafka.serializer import Serializer
from kafka.serializer.wrapper import SerializeWrapper

from pooledkafka._wire.clients import WiredProducer
from pooledkafka._wire.engine import Engine
from pooledkafka.errors import ConfigurationError

__all__ = ["Senders", "as_serializer"]


def as_serializer(given: Any) -> Any:
    """A serializer as kafka-python's producer takes it: an object, a function, or None."""
    return given if given is None or isinstance(given, Serializer) else SerializeWrapper(given)


class Senders:
    """Hands out KafkaProducers by their options. From any thread.

    Each has a Sender thread and an accumulator of its own, so handles that share one send their records in common
    batches. One with a ``transactional_id`` has one handle alone: a transaction belongs to whoever began it.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()  # guards the two below; held while a KafkaProducer is made, which does no I/O
        self._shared: dict[tuple[Any, ...], WiredProducer] = {}
        self._exclusive: dict[str, WiredProducer] = {}

    def acquire(self, options: Mapping[str, Any]) -> WiredProducer:
        """The KafkaProducer for a handle with ``options``.

        Raises ConfigurationError if another handle in the pool has the same ``transactional_id``.
        """
        transactional_id = options.get("transactional_id")
        with self._lock:
            if transactional_id is None:
                key = tuple(sorted((name, _identity(name, value)) for name, value in options.items()))
                if key not in self._shared:
                    self._shared[key] = WiredProducer(self._engine, options)
                return self._shared[key]
            if transactional_id in self._exclusive:
                raise ConfigurationError(
                    f"transactional_id={transactional_id!r} belongs to another producer of this connection pool, and "
                    "the broker would fence one of the two. Close that producer first, or use an id of its own."
                )
            self._exclusive[transactional_id] = WiredProducer(self._engine, options)
            return self._exclusive[transactional_id]

    def release(self, wired: WiredProducer, timeout_ms: float) -> int:
        """A handle is done; returns how many records were not delivered, where its KafkaProducer ends with it."""
        with self._lock:
            for transactional_id, other in self._exclusive.items():
                if other is wired:
                    del self._exclusive[transactional_id]
                    break
            else:
                return 0
        return wired.close(timeout_ms)

    def close(self, timeout_ms: float) -> int:
        """Deliver what is buffered and end all; returns how many records were not delivered."""
        deadline = time.monotonic() + timeout_ms / 1000
        with self._lock:
            everybody = [*self._shared.values(), *self._exclusive.values()]
            self._shared.clear()
            self._exclusive.clear()
        return sum(wired.close(max(0.0, deadline - time.monotonic()) * 1000) for wired in everybody)


def _identity(name: str, value: Any) -> str:
    """Equal for values that mean the same to a producer."""
    if name == "acks" and value == "all":
        value = -1
    plain = isinstance(value, (str, bytes, int, float, bool, tuple, list, type(None)))
    return repr(value) if plain else f"{type(value).__qualname__} at {id(value)}"
