"""What all integration tests share."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator

import pytest

from pooledkafka import ConnectionPool, Kafka


@pytest.fixture
def sockets_left_to_the_collector() -> Iterator[None]:
    """Let the garbage collector complain here, and not in a test that is not to blame.

    kafka-python leaves the socket of a connection attempt that failed, or was given up, to the garbage collector. Tests
    in which that happens use this, and ignore PytestUnraisableExceptionWarning of sockets.
    """
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def kafka(kafka_bootstrap_servers: str, request: pytest.FixtureRequest) -> Kafka:
    """The session's cluster, with what the module tests as the client id: ``slice`` in ``test_slice``."""
    client_id = request.module.__name__.rpartition("test_")[2]
    return Kafka(bootstrap_servers=kafka_bootstrap_servers, client_id=client_id)


@pytest.fixture
def pool(kafka: Kafka) -> Iterator[ConnectionPool]:
    """A pool of that cluster, for the test."""
    with kafka.connection_pool() as pool:
        yield pool
