"""Records that cannot be read: the error is raised, and the partition is fetched again from where its consumer is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from kafka.serializer import Deserializer
from kafka.structs import TopicPartition

from pooledkafka import Consumer, Kafka
from pooledkafka.testing import EmbeddedKafka

PARTITION = TopicPartition("orders", 0)
pytestmark = pytest.mark.timeout(60)  # what is tested here went on for ever


class OnlyGood(Deserializer):  # type: ignore[misc]
    def deserialize(self, topic: str, headers: Any, data: bytes) -> bytes:
        if data == b"2":
            raise ValueError("cannot read 2")
        return data


@pytest.fixture(params=[1, 5], ids=["one-batch", "batches"])
def consumer(request: pytest.FixtureRequest) -> Iterator[Consumer]:
    """Of a topic with records 0 to 4, in one batch or five, of which it cannot read record 2."""
    with EmbeddedKafka(brokers=1) as cluster:
        cluster.create_topic("orders")
        kafka = Kafka(**cluster.client_options())
        with kafka.producer() as producer:
            records = [{"value": b"%d" % number} for number in range(5)]
            each = len(records) // request.param
            for first in range(0, len(records), each):
                producer.send_batch("orders", records[first : first + each]).get(timeout=10)
        with kafka.consumer("orders", auto_offset_reset="earliest", value_deserializer=OnlyGood()) as consumer:
            yield consumer


def polled(consumer: Consumer) -> list[bytes]:
    while True:
        batches = consumer.poll(timeout_ms=1_000)
        if batches:
            return [record.value for record in batches[PARTITION]]


def test_what_is_good_comes_first_and_the_error_each_time_until_it_is_passed(consumer: Consumer) -> None:
    assert polled(consumer) == [b"0", b"1"]
    for _ in range(3):
        with pytest.raises(ValueError, match="cannot read 2"):
            polled(consumer)
        assert consumer.position(PARTITION) == 2
    consumer.seek(PARTITION, 3)
    assert polled(consumer) == [b"3", b"4"]


def test_a_partition_that_is_paused_at_a_bad_record_goes_on_there(consumer: Consumer) -> None:
    assert polled(consumer) == [b"0", b"1"]
    consumer.pause(PARTITION)
    assert consumer.poll(timeout_ms=10) == {}
    consumer.resume(PARTITION)
    with pytest.raises(ValueError, match="cannot read 2"):
        polled(consumer)
    consumer.seek(PARTITION, 4)
    assert polled(consumer) == [b"4"]


def test_iterating_raises_it_and_may_go_on_behind_it(consumer: Consumer) -> None:
    assert [next(consumer).value for _ in range(2)] == [b"0", b"1"]
    with pytest.raises(ValueError, match="cannot read 2"):
        next(consumer)
    consumer.seek(PARTITION, 3)
    assert next(consumer).value == b"3"
