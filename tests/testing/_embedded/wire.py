"""What tests of the embedded cluster ask on the wire."""

from __future__ import annotations

from typing import Any

from kafka.protocol.consumer import FetchRequest
from kafka.protocol.producer import ProduceRequest
from kafka.record import MemoryRecordsBuilder
from kafka.record.memory_records import MemoryRecords

from contract.wire import Wire

__all__ = ["Wire", "batch", "fetch", "fetched", "produce"]


def batch(*values: bytes, timestamp: int = 1_000) -> bytes:
    """A record batch, as a producer builds it."""
    builder = MemoryRecordsBuilder(magic=2, compression_type=0, batch_size=1 << 20)
    for value in values:
        builder.append(timestamp=timestamp, key=None, value=value)
    builder.close()
    return bytes(builder.buffer())


def produce(topic: str, *values: bytes, partition: int = 0, acks: int = -1, timeout_ms: int = 5_000) -> Any:
    """A Produce request of one batch."""
    topics = ProduceRequest.TopicProduceData
    records = topics.PartitionProduceData(index=partition, records=batch(*values))
    return ProduceRequest(
        transactional_id=None,
        acks=acks,
        timeout_ms=timeout_ms,
        topic_data=[topics(name=topic, partition_data=[records])],
    )


def fetch(
    topic: str, offset: int = 0, *, partition: int = 0, max_wait_ms: int = 0, min_bytes: int = 1, **options: Any
) -> Any:
    """A Fetch request of one partition, outside a session."""
    topics = FetchRequest.FetchTopic
    of_partition = {"current_leader_epoch": -1, "last_fetched_epoch": -1, "log_start_offset": -1}
    of_partition.update({name: options.pop(name) for name in list(options) if name in of_partition})
    asked = topics.FetchPartition(
        partition=partition,
        fetch_offset=offset,
        partition_max_bytes=options.pop("partition_max_bytes", 1 << 20),
        **of_partition,
    )
    fields = {"isolation_level": 0, "session_id": 0, "session_epoch": -1, "max_bytes": 1 << 24, "rack_id": ""}
    return FetchRequest(
        replica_id=-1,
        max_wait_ms=max_wait_ms,
        min_bytes=min_bytes,
        topics=[topics(topic=topic, partitions=[asked])],
        forgotten_topics_data=[],
        **{**fields, **options},
    )


def fetched(response: Any) -> list[bytes]:
    """The values of all records in a Fetch response."""
    values: list[bytes] = []
    for topic in response.responses:
        for partition in topic.partitions:
            records = MemoryRecords(bytes(partition.records or b""))
            while (found := records.next_batch()) is not None:
                values.extend(record.value for record in found)
    return values
