"""kafka-python's own clients, with what they make of all that."""

from __future__ import annotations

from functools import partial

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from contract.lab import Lab, until


def read(consumer: KafkaConsumer, count: int) -> list[bytes]:
    """Poll until there are as many records; their values, sorted."""
    found: list[bytes] = []

    def more() -> int:
        for records in consumer.poll(timeout_ms=100).values():
            found.extend(record.value for record in records)
        return len(found)

    until(more, lambda read: read >= count)
    return sorted(found)


def test_a_group_goes_on_where_it_has_committed(lab: Lab) -> None:
    topic, group = lab.topic(partitions=3), lab.name("group-")
    options = lab.cluster.client_options()
    consuming = {**options, "group_id": group, "auto_offset_reset": "earliest", "enable_auto_commit": False}
    producer = KafkaProducer(**options)
    try:
        for turn in (b"first", b"second"):
            for partition in range(3):
                producer.send(topic, turn + b"%d" % partition, partition=partition).get(timeout=20)
            consumer = KafkaConsumer(**consuming)
            try:
                # One that leads its group before it knows the topic assigns nothing, to itself as well.
                until(partial(consumer.partitions_for_topic, topic))
                consumer.subscribe([topic])
                assert read(consumer, 3) == [turn + b"%d" % partition for partition in range(3)]
                consumer.commit()
            finally:
                consumer.close()
    finally:
        producer.close()


def test_a_transaction_is_read_whole_or_not_at_all(lab: Lab) -> None:
    topic = lab.topic()
    options = lab.cluster.client_options()
    producer = KafkaProducer(**options, transactional_id=lab.name("txn-"))
    consumer = KafkaConsumer(**options, isolation_level="read_committed", auto_offset_reset="earliest")
    try:
        producer.init_transactions()
        producer.begin_transaction()
        producer.send(topic, b"void").get(timeout=20)
        producer.abort_transaction()
        producer.begin_transaction()
        producer.send(topic, b"good").get(timeout=20)
        producer.commit_transaction()
        part = TopicPartition(topic, 0)
        consumer.assign([part])
        assert read(consumer, 1) == [b"good"]
        until(lambda: (consumer.poll(timeout_ms=50), consumer.position(part)), lambda answer: answer == ({}, 4))
    finally:
        producer.close()
        consumer.close()
