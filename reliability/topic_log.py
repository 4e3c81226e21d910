"""All records of a topic, as a plain consumer of kafka-python's reads them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from kafka import KafkaConsumer
from kafka.structs import TopicPartition

__all__ = ["records_of"]

_WITHIN_S = 300.0


def records_of(options: Mapping[str, Any], topic: str) -> Iterator[Any]:
    """Those that are there when it begins, in order within each partition. Raises TimeoutError."""
    with KafkaConsumer(**options, enable_auto_commit=False, auto_offset_reset="earliest") as consumer:
        partitions = [TopicPartition(topic, index) for index in consumer.partitions_for_topic(topic)]
        consumer.assign(partitions)
        ends = consumer.end_offsets(partitions)
        deadline = time.monotonic() + _WITHIN_S
        while any(consumer.position(partition) < end for partition, end in ends.items()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the log of {topic} could not be read to its end within {_WITHIN_S:g} s")
            for records in consumer.poll(timeout_ms=500, max_records=5_000).values():
                yield from records
