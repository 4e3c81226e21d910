"""The pool: one set of connections that any number of clients share."""

from __future__ import annotations

import threading
import time
from enum import Enum
from types import TracebackType
from typing import Any, Protocol

from pooledkafka._logging import get_logger
from pooledkafka._wire import Engine, Lane
from pooledkafka.config import check_sizes, pool_options
from pooledkafka.errors import ConfigurationError, PoolClosedError, PoolTimeoutError
from pooledkafka.stats import PoolStats

__all__ = ["ConnectionPool"]

_log = get_logger("pooledkafka.pool")


class State(Enum):
    """Where a pool is in its life."""

    NEW = "new"
    CONNECTED = "connected"
    DISCONNECTED = "disconnected"


class AttachedClient(Protocol):
    """A client as its pool sees it."""

    kind: str

    def _detach(self, timeout_ms: float) -> int:
        """End the client's work within ``timeout_ms``; return how many records it could not deliver."""


class ConnectionPool:
    """Connections to one Kafka cluster, shared by any number of consumers and producers.

    Args:
        metadata_max_age_ms: milliseconds after which the cluster's metadata is refreshed even if nothing seems to have
            changed. Default: 300000.
        allow_auto_create_topics: let the brokers create a topic that a client asks for and that does not exist, where
            they are configured to. Default: True.
        max_in_flight_requests: the largest number of requests in progress at any time. None or 0: no limit, the only
            setting that this release has.
        options: kafka-python's connection and security options (``bootstrap_servers``, ``security_protocol``, ...),
            with its names, defaults and meaning.

    Nothing connects and no thread starts until ``connect()`` or the first use of a client. All methods may be called
    from any thread. ``with`` connects, and disconnects at the end.

    Raises:
        ConfigurationError: an option is unknown, or has a value that cannot work.

    Example:
        >>> with ConnectionPool(bootstrap_servers="localhost:9092") as pool:
        ...     consumer = Consumer("orders", group_id="billing", connection_pool=pool)
        ...     producer = Producer(connection_pool=pool)
    """

    def __init__(
        self,
        *,
        metadata_max_age_ms: int = 300_000,
        allow_auto_create_topics: bool = True,
        max_in_flight_requests: int | None = None,
        **options: Any,
    ) -> None:
        check_sizes({"max_in_flight_requests": max_in_flight_requests})
        if max_in_flight_requests:
            raise ConfigurationError(
                f"max_in_flight_requests={max_in_flight_requests!r} is not supported by this release, which would not "
                "keep to it. Leave it out, or pass None for no limit."
            )
        self.options = pool_options(
            {
                **options,
                "metadata_max_age_ms": metadata_max_age_ms,
                "allow_auto_create_topics": allow_auto_create_topics,
            }
        )
        # Lock order: _life, then _lock. _life is held while connecting and disconnecting, which wait for brokers;
        # _lock guards the fields below it and is never held while anything is waited for.
        self._life = threading.RLock()
        self._lock = threading.Lock()
        self._state = State.NEW
        self._engine: Engine | None = None
        self._clients: dict[int, AttachedClient] = {}  # by id(): clients need not be hashable
        self._ended_created = 0  # connections of engines that have been stopped
        self._ended_closed = 0

    # -- life cycle ----------------------------------------------------------------------------------------------------

    def connect(self, timeout_ms: float | None = None) -> None:
        """Find the cluster and get ready; returns at once if connected.

        After ``disconnect()``, this connects anew, and the pool's clients work again.

        Args:
            timeout_ms: milliseconds to wait. Default: ``bootstrap_timeout_ms`` (30000).

        Raises:
            PoolTimeoutError: no broker answered in time; the message names the last cause.
            KafkaError: a broker refused the credentials.
        """
        with self._life:
            if self._engine is not None:
                return
            engine = Engine(self.options)
            try:
                engine.start(self.options["bootstrap_timeout_ms"] if timeout_ms is None else timeout_ms)
            except BaseException:
                engine.stop()
                raise
            with self._lock:
                self._engine = engine
                self._state = State.CONNECTED
            _log.info("connected", bootstrap_servers=self.options["bootstrap_servers"])

    def disconnect(self, timeout_ms: float = 30_000) -> None:
        """End all clients' work and close every connection; returns at once if not connected.

        Consumers commit and leave their groups, then producers send what is buffered, then the connections close.
        Clients stay usable for a later ``connect()``.

        Args:
            timeout_ms: milliseconds for all of that.

        Raises:
            PoolTimeoutError: records were left undelivered; the message says how many. The pool is disconnected.
        """
        deadline = time.monotonic() + timeout_ms / 1000
        with self._life:
            with self._lock:
                engine, self._engine = self._engine, None
                if engine is None:
                    return
                self._state = State.DISCONNECTED
                clients = list(self._clients.values())
                self._clients.clear()
            undelivered = 0
            try:
                for client in sorted(clients, key=lambda client: client.kind):  # consumers first, then producers
                    undelivered += client._detach(max(0.0, deadline - time.monotonic()) * 1000)
            finally:
                engine.stop()
                with self._lock:
                    self._ended_created += engine.created.total()
                    self._ended_closed += engine.created.total()
            _log.info("disconnected", undelivered=undelivered)
        if undelivered:
            raise PoolTimeoutError(
                f"the pool is disconnected, but {undelivered} records could not be delivered within {timeout_ms:.0f} "
                "ms; their futures have failed. Call flush() before disconnect(), or give it a longer timeout_ms."
            )

    def __enter__(self) -> ConnectionPool:
        self.connect()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.disconnect()

    # -- for clients ---------------------------------------------------------------------------------------------------

    def _attach(self, client: AttachedClient) -> Engine:
        """Count ``client`` among those that ``disconnect()`` ends, and return what it works with.

        Connects a pool that is new; one that was disconnected stays so until somebody calls ``connect()``.
        """
        with self._life:
            if self._state is State.NEW:
                self.connect()
            with self._lock:
                if self._engine is None:
                    raise PoolClosedError(
                        "the connection pool was disconnected; call connect() on it to use its clients again"
                    )
                self._clients[id(client)] = client
                return self._engine

    def _forget(self, client: AttachedClient) -> None:
        with self._lock:
            self._clients.pop(id(client), None)

    # -- looking at it -------------------------------------------------------------------------------------------------

    @property
    def client(self) -> Any:
        """The kafka-python client that everything in this pool shares.

        Raises:
            PoolClosedError: the pool is not connected.
        """
        engine = self._engine
        if engine is None:
            raise PoolClosedError(f"the connection pool is {self._state.value}; call connect() first")
        return engine.client

    def stats(self) -> PoolStats:
        """What the pool holds now."""
        with self._lock:
            engine = self._engine
            kinds = [client.kind for client in self._clients.values()]
            created, closed = self._ended_created, self._ended_closed
        connections: dict[int, dict[str, int]] = {}
        if engine is not None:
            created += engine.created.total()
            closed += engine.closed.total()
            for (node_id, lane), count in sorted(engine.open_connections().items()):
                if lane is not Lane.BOOTSTRAP:
                    connections.setdefault(node_id, {})[lane.value] = count
        return PoolStats(
            consumers=kinds.count("consumer"),
            producers=kinds.count("producer"),
            connections=connections,
            connections_created=created,
            connections_closed=closed,
            requests_in_flight=engine.in_flight() if engine else 0,
            metadata_age_ms=engine.manager.cluster.age_ms() if engine else None,
        )

    def __repr__(self) -> str:
        stats = self.stats()
        return (
            f"<ConnectionPool {self.options['bootstrap_servers']!r} [{self._state.value} | "
            f"clients: {stats.consumers} consumers, {stats.producers} producers | "
            f"connections: {stats.connections_open} to {len(stats.connections)} brokers | "
            f"in flight: {stats.requests_in_flight}]>"
        )
