"""A producer that may not write fails alone, and may write when it is allowed to."""

from __future__ import annotations

from typing import Any

import pytest
from kafka.errors import ClusterAuthorizationFailedError, KafkaError, TopicAuthorizationFailedError

from pooledkafka import ConnectionPool, Kafka
from pooledkafka.testing import EmbeddedKafka, Error
from tests.pooled.waiting import TIMEOUT_S


@pytest.fixture(autouse=True)
def topics(cluster: EmbeddedKafka) -> None:
    for topic in ("open", "forbidden"):
        cluster.create_topic(topic, assignment=[[1, 2, 3]])


def test_a_forbidden_topic_fails_its_own_records_alone(
    cluster: EmbeddedKafka, kafka: Kafka, pool: ConnectionPool
) -> None:
    """Though they travel in one request of one shared producer."""
    with (
        kafka.producer(connection_pool=pool, linger_ms=50) as one,
        kafka.producer(connection_pool=pool, linger_ms=50) as other,
    ):
        one.send("open", b"first").get(TIMEOUT_S)
        assert one._opened() is other._opened()
        with cluster.intercept("Produce", Error(TopicAuthorizationFailedError, partitions=[("forbidden", 0)])) as fault:
            bad = [one.send("forbidden", b"%d" % n) for n in range(5)]
            good = [other.send("open", b"%d" % n) for n in range(5)]
            for future in bad:
                with pytest.raises(TopicAuthorizationFailedError, match="forbidden"):
                    future.get(TIMEOUT_S)
            assert [future.get(TIMEOUT_S).offset for future in good] == list(range(1, 6))
            assert fault.requests
        one.send("forbidden", b"now").get(TIMEOUT_S)


def test_who_may_not_write_idempotently_may_later(cluster: EmbeddedKafka, kafka: Kafka, pool: ConnectionPool) -> None:
    """kafka-python's producer is at its end then; the handles of a shared one get another."""
    producers: list[Any] = [kafka.producer(connection_pool=pool) for _ in range(3)]
    with (
        cluster.intercept("InitProducerId", Error(ClusterAuthorizationFailedError)),
        pytest.raises(KafkaError, match="ClusterAuthorizationFailed"),
    ):
        producers[0].send("open", b"refused").get(TIMEOUT_S)
    assert [producer.send("open", b"allowed").get(TIMEOUT_S).offset for producer in producers] == [0, 1, 2]
    assert len({id(producer._opened()) for producer in producers}) == 1, "still one for all"
    for producer in producers:
        producer.close()
