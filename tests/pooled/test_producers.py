"""What becomes of a shared producer after the worst that can happen to its records."""

from __future__ import annotations

from typing import Any

import pytest
from kafka.errors import KafkaTimeoutError, NotLeaderForPartitionError

from pooledkafka import ConnectionPool, Kafka
from pooledkafka.testing import Delay, EmbeddedKafka, Error
from tests.pooled.reading import read
from tests.pooled.waiting import TIMEOUT_S
from tests.pooled.watching import POOL


def test_a_producer_goes_on_after_records_that_were_sent_have_expired(
    cluster: EmbeddedKafka, kafka: Kafka, pool: ConnectionPool
) -> None:
    cluster.create_topic("orders")
    # It expires in the pause after the second attempt, and not while one is answered: then the answer is its error.
    options = {"delivery_timeout_ms": 1_000, "request_timeout_ms": 900, "retry_backoff_ms": 600}
    producer = kafka.producer(connection_pool=pool, **options)
    producer.send("orders", b"first").get(timeout=TIMEOUT_S)

    def refuse(request: Any) -> Error | None:  # also an attempt that comes after the record has expired
        carries_it = b"expired" in bytes(request.topic_data[0].partition_data[0].records)
        return Error(NotLeaderForPartitionError) if carries_it else None

    cluster.intercept("Produce", refuse, client_id=POOL)
    with pytest.raises(KafkaTimeoutError, match="Expiring 1 record"):
        producer.send("orders", b"expired").get(timeout=TIMEOUT_S)
    another = kafka.producer(connection_pool=pool, **options)
    for number, handle in enumerate((producer, another)):
        handle.send("orders", b"%d" % number).get(timeout=TIMEOUT_S)
    with kafka.consumer("orders", connection_pool=pool, auto_offset_reset="earliest") as consumer:
        assert read(consumer, 3) == [b"first", b"0", b"1"]


def test_what_waits_for_replicas_holds_up_what_others_produce_to_that_broker_and_nothing_else(
    cluster: EmbeddedKafka, kafka: Kafka, pool: ConnectionPool
) -> None:
    """A limit: a broker serves one Produce of a connection at a time, and there is one for all. docs/when-not.md."""
    cluster.create_topic("replicated", assignment=[[1, 2]])
    cluster.create_topic("alone", assignment=[[1], [2]])
    producer, other = kafka.producer(connection_pool=pool), kafka.producer(connection_pool=pool, acks=1)
    other.send("alone", b"before", partition=0).get(timeout=TIMEOUT_S)
    cluster.slow_follower(2, None)
    with cluster.intercept("Produce", Delay(0), client_id=POOL) as seen:
        waits = producer.send("replicated", b"tea")
        seen.wait_for(1)
        held_up = other.send("alone", b"coffee", partition=0)
        other.send("alone", b"cake", partition=1).get(timeout=TIMEOUT_S)
        with kafka.consumer("alone", group_id="g", connection_pool=pool, auto_offset_reset="earliest") as consumer:
            assert sorted(read(consumer, 2)) == [b"before", b"cake"]
            consumer.commit()
        assert not held_up.is_done
        assert not waits.is_done
        cluster.slow_follower(2, 0)
        for future in (waits, held_up):
            future.get(timeout=TIMEOUT_S)
