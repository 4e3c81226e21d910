"""The settings of a cluster, from which pools and clients are made."""

from __future__ import annotations

from typing import Any

from pooledkafka._secrets import Options
from pooledkafka.admin import Admin
from pooledkafka.config import pool_options
from pooledkafka.consumer import Consumer
from pooledkafka.pool import ConnectionPool
from pooledkafka.producer import Producer

__all__ = ["Kafka"]


class Kafka:
    """Where a Kafka cluster is, and how to log in to it.

    Args:
        options: kafka-python's connection and security options (``bootstrap_servers``, ``client_id``,
            ``security_protocol``, ...), with its names, meaning and, but for ``reconnect_backoff_max_ms``, defaults.

    Connects to nothing. Thread-safe.

    Raises:
        ConfigurationError: an option is unknown, or has a value that cannot work.

    Example:
        >>> kafka = Kafka(bootstrap_servers="localhost:9092", client_id="shop")
        >>> pool = kafka.connection_pool()
        >>> consumer = kafka.consumer("orders", group_id="billing", connection_pool=pool)
        >>> producer = kafka.producer(connection_pool=pool)
    """

    def __init__(self, **options: Any) -> None:
        pool_options(options)
        self._options = Options(options)

    def connection_pool(
        self,
        *,
        metadata_max_age_ms: int | None = None,
        allow_auto_create_topics: bool | None = None,
        max_in_flight_requests: int | None = None,
        max_leased_connections: int = 1_000,
        leased_connections_per_second: float = 20,
        fetch_buffer_bytes: int = 67_108_864,
        request_timeout_ms: float = 30_000,
        exit_timeout_ms: float | None = None,
    ) -> ConnectionPool:
        """A pool for this cluster; see ``ConnectionPool`` for its options.

        ``metadata_max_age_ms``, ``allow_auto_create_topics`` and ``exit_timeout_ms`` default to what was given to
        ``Kafka``, if anything.
        """
        given = {
            "metadata_max_age_ms": metadata_max_age_ms,
            "allow_auto_create_topics": allow_auto_create_topics,
            "exit_timeout_ms": exit_timeout_ms,
        }
        options: dict[str, Any] = {
            **self._options,
            **{name: value for name, value in given.items() if value is not None},
            "max_in_flight_requests": max_in_flight_requests,
            "max_leased_connections": max_leased_connections,
            "leased_connections_per_second": leased_connections_per_second,
            "fetch_buffer_bytes": fetch_buffer_bytes,
            "request_timeout_ms": request_timeout_ms,
        }
        return ConnectionPool(**options)

    def consumer(self, *topics: str, connection_pool: ConnectionPool | None = None, **options: Any) -> Consumer:
        """A consumer of this cluster, over ``connection_pool``, or with a private one; see ``Consumer``."""
        return Consumer(*topics, connection_pool=connection_pool, **self._with_connection(connection_pool, options))

    def producer(self, *, connection_pool: ConnectionPool | None = None, **options: Any) -> Producer:
        """A producer to this cluster, over ``connection_pool``, or with a private one; see ``Producer``."""
        return Producer(connection_pool=connection_pool, **self._with_connection(connection_pool, options))

    def admin(self, *, connection_pool: ConnectionPool | None = None, **options: Any) -> Admin:
        """An admin client of this cluster, over ``connection_pool``, or with a private one; see ``Admin``."""
        return Admin(connection_pool=connection_pool, **self._with_connection(connection_pool, options))

    def _with_connection(self, pool: ConnectionPool | None, options: dict[str, Any]) -> dict[str, Any]:
        # With a pool, its own options hold; checking ours against them would only catch a pool of another cluster,
        # which the user has just chosen.
        return options if pool is not None else {**self._options, **options}

    def __repr__(self) -> str:
        shown = {name: self._options[name] for name in ("bootstrap_servers", "client_id") if name in self._options}
        return f"Kafka({', '.join(f'{name}={value!r}' for name, value in shown.items())})"
