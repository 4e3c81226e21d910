"""An embedded cluster, a pool on it that is under test, and a producer beside it that is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from pooledkafka import ConnectionPool, Consumer, Kafka
from pooledkafka.testing import EmbeddedKafka
from tests.pooled.reading import Reader
from tests.pooled.watching import POOL
from tests.pooled.writing import Writer

CONFIG = {"group.min.session.timeout.ms": "100"}
# So that a broker is tried again soon.
IMPATIENT = {"reconnect_backoff_ms": 10, "reconnect_backoff_max_ms": 50}


@pytest.fixture
def config() -> dict[str, str]:
    """Properties of the brokers; a module or class may have others."""
    return CONFIG


@pytest.fixture
def cluster(config: dict[str, str]) -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(brokers=3, config=config) as cluster:
        yield cluster


@pytest.fixture
def kafka(cluster: EmbeddedKafka) -> Kafka:
    """Under whose client id the pool is known."""
    return Kafka(**cluster.client_options(), **IMPATIENT, client_id=POOL)


@pytest.fixture
def pool(kafka: Kafka) -> Iterator[ConnectionPool]:
    with kafka.connection_pool() as pool:
        yield pool


@pytest.fixture
def writer(cluster: EmbeddedKafka) -> Iterator[Writer]:
    """Writes over connections of its own, whatever becomes of the pool's."""
    with Kafka(**cluster.client_options(), **IMPATIENT, client_id="writer").producer() as producer:
        yield Writer(producer)


@pytest.fixture
def consumer(kafka: Kafka, pool: ConnectionPool) -> Iterator[Callable[..., Consumer]]:
    """Makes consumers over the pool, which read from the beginning and are closed after the test."""
    with ExitStack() as stack:

        def make(*topics: str, **options: Any) -> Consumer:
            made = kafka.consumer(*topics, connection_pool=pool, **{"auto_offset_reset": "earliest", **options})
            return stack.enter_context(made)

        yield make


@pytest.fixture
def reader(kafka: Kafka, pool: ConnectionPool) -> Iterator[Callable[..., Reader]]:
    """Makes readers over the pool, which read from the beginning and are stopped after the test."""
    with ExitStack() as stack:

        def make(*topics: str, **options: Any) -> Reader:
            consumer = kafka.consumer(*topics, connection_pool=pool, **{"auto_offset_reset": "earliest", **options})
            return stack.enter_context(Reader(consumer))

        yield make
