"""A producer that may not write fails alone, and may write when it is allowed to."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from kafka.errors import ClusterAuthorizationFailedError, KafkaError, TopicAuthorizationFailedError
from kafka.partitioner import DefaultPartitioner
from kafka.producer.sender import Sender
from kafka.serializer import Serializer

from pooledkafka import ConnectionPool, Kafka
from pooledkafka._wire.senders import Senders
from pooledkafka.errors import PoolClosedError
from pooledkafka.testing import EmbeddedKafka, Error, Fault
from tests.pooled.waiting import TIMEOUT_S, until


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


def refuse(cluster: EmbeddedKafka) -> Fault:
    return cluster.intercept("InitProducerId", Error(ClusterAuthorizationFailedError))


def test_it_is_tried_again_in_the_callback_of_the_record_that_was_refused(
    cluster: EmbeddedKafka, kafka: Kafka, pool: ConnectionPool
) -> None:
    again: list[Any] = []
    with kafka.producer(connection_pool=pool) as producer:
        with refuse(cluster) as refused:

            def try_again(_: Any) -> None:
                refused.remove()
                again.append(producer.send("open", b"again"))

            producer.send("open", b"refused").add_errback(try_again)
            until(lambda: again)
        assert again[0].get(TIMEOUT_S).offset == 0
    pool.disconnect()
    until(lambda: [each for each in threading.enumerate() if isinstance(each, Sender)], lambda left: not left)


def test_the_next_one_goes_on_with_the_users_serializers(
    cluster: EmbeddedKafka, kafka: Kafka, pool: ConnectionPool
) -> None:
    class Once(Serializer):  # type: ignore[misc]
        def __init__(self) -> None:
            self.closed = False

        def serialize(self, topic: str, headers: Any, data: Any) -> Any:
            assert not self.closed
            return data

        def close(self) -> None:
            self.closed = True

    with kafka.producer(connection_pool=pool, partitioner=DefaultPartitioner(), value_serializer=Once()) as producer:
        with refuse(cluster), pytest.raises(KafkaError):
            producer.send("open", b"refused").get(TIMEOUT_S)
        assert producer.send("open", b"allowed").get(TIMEOUT_S).offset == 0


def test_a_pool_that_was_disconnected_meanwhile_makes_no_other(
    cluster: EmbeddedKafka, kafka: Kafka, pool: ConnectionPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    producer = kafka.producer(connection_pool=pool)
    with refuse(cluster), pytest.raises(KafkaError):
        producer.send("open", b"refused").get(TIMEOUT_S)
    renew = Senders.renew

    def late(*args: Any) -> Any:
        thread = threading.Thread(target=pool.disconnect)
        thread.start()
        thread.join()
        return renew(*args)

    monkeypatch.setattr(Senders, "renew", late)
    with pytest.raises(PoolClosedError):
        producer.send("open", b"too late")
    assert not [each for each in threading.enumerate() if isinstance(each, Sender)]
