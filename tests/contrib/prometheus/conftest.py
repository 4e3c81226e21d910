"""An embedded cluster, and a pool on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pooledkafka import ConnectionPool, Kafka
from pooledkafka.testing import EmbeddedKafka


@pytest.fixture
def cluster() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(brokers=1) as cluster:
        cluster.create_topic("orders", partitions=2)
        yield cluster


@pytest.fixture
def kafka(cluster: EmbeddedKafka) -> Kafka:
    return Kafka(**cluster.client_options(), client_id="shop")


@pytest.fixture
def pool(kafka: Kafka) -> Iterator[ConnectionPool]:
    with kafka.connection_pool() as pool:
        yield pool
