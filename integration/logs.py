"""What a partition's log holds, as a consumer shows it: to compare two consumers record by record."""

from __future__ import annotations

import time
from typing import Any

from kafka import KafkaConsumer
from kafka.structs import TopicPartition

__all__ = ["Entry", "Log", "entry", "plain_log"]

Entry = tuple[Any, ...]
Log = dict[TopicPartition, list[Entry]]


def entry(record: Any) -> Entry:
    """All of a record, its offset first."""
    return record.offset, record.timestamp, record.key, record.value, tuple(record.headers)


def plain_log(bootstrap_servers: str, partitions: list[TopicPartition], **options: Any) -> Log:
    """All that the partitions hold now, as a KafkaConsumer of kafka-python's own reads them."""
    with KafkaConsumer(bootstrap_servers=bootstrap_servers) as consumer:
        ends = consumer.end_offsets(partitions)
    log: Log = {partition: [] for partition in partitions}
    with KafkaConsumer(bootstrap_servers=bootstrap_servers, auto_offset_reset="earliest", **options) as consumer:
        consumer.assign(partitions)
        deadline = time.monotonic() + 60
        while any(consumer.position(partition) < end for partition, end in ends.items()):
            assert time.monotonic() < deadline, "the log could not be read to its end"
            for partition, records in consumer.poll(timeout_ms=500).items():
                log[partition].extend(entry(record) for record in records)
    return log
