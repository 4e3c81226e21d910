"""Connection pooling for Kafka: any number of consumers and producers over a few shared connections."""

from __future__ import annotations

from pooledkafka.admin import Admin
from pooledkafka.consumer import Consumer
from pooledkafka.errors import (
    ConcurrentUseError,
    ConfigurationError,
    ConnectFailedError,
    ErrorLimitError,
    ForkedClientError,
    PoolClosedError,
    PoolError,
    PoolTimeoutError,
)
from pooledkafka.events import (
    ClientAttached,
    ClientDetached,
    ConnectionClosed,
    ConnectionCreated,
    ConnectionReady,
    MetadataRefreshed,
    PoolEvent,
    Reauthenticated,
    Throttled,
)
from pooledkafka.kafka import Kafka
from pooledkafka.pool import ConnectionPool
from pooledkafka.producer import Producer
from pooledkafka.stats import ConsumerProgress, Durations, PoolStats, Waits

__all__ = [
    "Admin",
    "ClientAttached",
    "ClientDetached",
    "ConcurrentUseError",
    "ConfigurationError",
    "ConnectFailedError",
    "ConnectionClosed",
    "ConnectionCreated",
    "ConnectionPool",
    "ConnectionReady",
    "Consumer",
    "ConsumerProgress",
    "Durations",
    "ErrorLimitError",
    "ForkedClientError",
    "Kafka",
    "MetadataRefreshed",
    "PoolClosedError",
    "PoolError",
    "PoolEvent",
    "PoolStats",
    "PoolTimeoutError",
    "Producer",
    "Reauthenticated",
    "Throttled",
    "Waits",
]
