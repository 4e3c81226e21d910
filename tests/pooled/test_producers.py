"""What becomes of a shared producer after the worst that can happen to its records."""

from __future__ import annotations

import pytest
from kafka.errors import KafkaTimeoutError, NotLeaderForPartitionError

from pooledkafka import ConnectionPool, Kafka
from pooledkafka.testing import EmbeddedKafka, Error
from tests.pooled.reading import read
from tests.pooled.waiting import TIMEOUT_S, until
from tests.pooled.watching import POOL


def test_a_producer_goes_on_after_records_that_were_sent_have_expired(
    cluster: EmbeddedKafka, kafka: Kafka, pool: ConnectionPool
) -> None:
    cluster.create_topic("orders")
    options = {"delivery_timeout_ms": 1_000, "request_timeout_ms": 900, "retry_backoff_ms": 20}
    producer = kafka.producer(connection_pool=pool, **options)
    producer.send("orders", b"first").get(timeout=TIMEOUT_S)
    with cluster.intercept("Produce", Error(NotLeaderForPartitionError), client_id=POOL):
        with pytest.raises(KafkaTimeoutError, match="Expiring 1 record"):
            producer.send("orders", b"expired").get(timeout=TIMEOUT_S)
        until(lambda: pool.stats().requests_in_flight == 0)  # the last attempt would be written, too late to be told
    another = kafka.producer(connection_pool=pool, **options)
    for number, handle in enumerate((producer, another)):
        handle.send("orders", b"%d" % number).get(timeout=TIMEOUT_S)
    with kafka.consumer("orders", connection_pool=pool, auto_offset_reset="earliest") as consumer:
        assert read(consumer, 3) == [b"first", b"0", b"1"]
