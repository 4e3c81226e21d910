"""Connection pooling for Kafka: any number of consumers and producers over a few shared connections."""

from __future__ import annotations

from pooledkafka.admin import Admin
from pooledkafka.consumer import Consumer
from pooledkafka.errors import (
    ConcurrentUseError,
    ConfigurationError,
    PoolClosedError,
    PoolError,
    PoolTimeoutError,
)
from pooledkafka.kafka import Kafka
from pooledkafka.pool import ConnectionPool
from pooledkafka.producer import Producer
from pooledkafka.stats import PoolStats

__all__ = [
    "Admin",
    "ConcurrentUseError",
    "ConfigurationError",
    "ConnectionPool",
    "Consumer",
    "Kafka",
    "PoolClosedError",
    "PoolError",
    "PoolStats",
    "PoolTimeoutError",
    "Producer",
]
