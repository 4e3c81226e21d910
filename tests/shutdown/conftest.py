from __future__ import annotations

from collections.abc import Iterator

import pytest

from pooledkafka.testing import EmbeddedKafka


@pytest.fixture
def cluster() -> Iterator[EmbeddedKafka]:
    """One broker with a topic of one partition."""
    with EmbeddedKafka(brokers=1, config={"group.min.session.timeout.ms": "100"}) as cluster:
        cluster.create_topic("orders")
        yield cluster
