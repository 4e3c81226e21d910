"""``Consumer.run`` on real brokers: what was handled is committed, and nothing else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from kafka.structs import TopicPartition

from integration.clients import eventually
from pooledkafka import ConcurrentUseError, ConnectionPool, Consumer, Kafka, PoolClosedError

RECORDS = 30


@pytest.fixture
def topic(kafka: Kafka, pool: ConnectionPool, kafka_topic: str) -> str:
    """A topic with one partition that holds the records 0 to 29."""
    with kafka.producer(connection_pool=pool) as producer:
        producer.send_batch(kafka_topic, [{"value": b"%d" % n} for n in range(RECORDS)]).get(timeout=30)
    return kafka_topic


@pytest.fixture(params=[True, False], ids=["auto-commit", "commit-by-run"])
def consumer(kafka: Kafka, pool: ConnectionPool, topic: str, request: pytest.FixtureRequest) -> Iterator[Consumer]:
    with kafka.consumer(group_id=topic, connection_pool=pool, enable_auto_commit=request.param) as consumer:
        consumer.subscribe([topic], from_beginning=True)
        yield consumer


def handled_by(consumer: Consumer, action: Callable[[int], Any]) -> list[int]:
    """Run with a handler that calls ``action`` with each record's offset; returns the offsets that it got."""
    got: list[int] = []

    def handler(record: Any) -> None:
        assert record.value == b"%d" % record.offset
        got.append(record.offset)
        action(record.offset)

    consumer.run(handler)
    return got


def committed(consumer: Consumer, topic: str) -> int | None:
    """What the group has committed, as it is after the consumer was closed."""
    pool, group = consumer._pool, consumer._options["group_id"]
    consumer.close()
    with Consumer(group_id=group, connection_pool=pool) as other:
        offset: int | None = other.committed(TopicPartition(topic, 0))
        return offset


def test_it_runs_until_it_is_stopped_and_goes_on_from_there(consumer: Consumer, topic: str) -> None:
    got = handled_by(consumer, lambda offset: consumer.stop() if offset == 11 else None)
    assert got == list(range(12))
    got = handled_by(consumer, lambda offset: consumer.stop() if offset == RECORDS - 1 else None)
    assert got == list(range(12, RECORDS))
    assert committed(consumer, topic) == RECORDS


def test_one_that_was_stopped_before_it_began_does_nothing_once(consumer: Consumer) -> None:
    consumer.stop()
    assert handled_by(consumer, lambda offset: None) == []
    assert handled_by(consumer, lambda offset: consumer.stop()) == [0]


def test_a_record_whose_handler_fails_is_not_committed_and_comes_again(
    kafka: Kafka, pool: ConnectionPool, consumer: Consumer, topic: str
) -> None:
    def fail(offset: int) -> None:
        if offset == 7:
            raise LookupError("no such customer")

    with pytest.raises(LookupError, match="no such customer"):
        handled_by(consumer, fail)
    assert handled_by(consumer, lambda offset: consumer.stop()) == [7], "in the same consumer"
    with pytest.raises(LookupError):
        handled_by(consumer, lambda offset: fail(7))
    assert committed(consumer, topic) == 8
    with kafka.consumer(topic, group_id=topic, connection_pool=pool) as other:
        assert handled_by(other, lambda offset: other.stop()) == [8], "and in another of the group"


def test_a_handler_may_seek(consumer: Consumer, topic: str) -> None:
    sought: list[int] = []

    def action(offset: int) -> None:
        if offset == 5 and not sought:
            sought.append(offset)
            consumer.seek(TopicPartition(topic, 0), 3)
        elif offset == 6:
            consumer.stop()

    assert handled_by(consumer, action) == [0, 1, 2, 3, 4, 5, 3, 4, 5, 6]


@pytest.mark.parametrize("end", [Consumer.close, Consumer.disconnect])
def test_ending_it_from_another_thread_waits_for_the_record_in_hand(
    kafka: Kafka, consumer: Consumer, topic: str, end: Callable[[Consumer], None]
) -> None:
    in_hand, go_on = threading.Event(), threading.Event()
    got: list[int] = []

    def action(offset: int) -> None:
        if offset == 4:
            in_hand.set()
            assert go_on.wait(30)

    runner = threading.Thread(target=lambda: got.extend(handled_by(consumer, action)))
    runner.start()
    assert in_hand.wait(30)
    with pytest.raises(ConcurrentUseError):
        consumer.assignment()
    closer = threading.Thread(target=end, args=(consumer,))
    closer.start()
    eventually(lambda: consumer._run_is_over, 10, "the run is told")
    go_on.set()
    runner.join(30)
    closer.join(30)
    assert got == [0, 1, 2, 3, 4]
    with pytest.raises(PoolClosedError):
        consumer.run(lambda record: None)
    with kafka.connection_pool() as pool, Consumer(group_id=topic, connection_pool=pool) as other:
        assert other.committed(TopicPartition(topic, 0)) == 5


def test_a_handler_may_close_its_own_consumer(consumer: Consumer, topic: str) -> None:
    assert handled_by(consumer, lambda offset: consumer.close() if offset == 4 else None) == [0, 1, 2, 3, 4]
    assert committed(consumer, topic) == 4, "the record in hand was not handled yet when it was closed"


SCRIPT = """
import signal, sys
from pooledkafka import Consumer

consumer = Consumer(bootstrap_servers=sys.argv[1], group_id=sys.argv[2])
consumer.subscribe([sys.argv[2]], from_beginning=True)
signal.signal(signal.SIGTERM, lambda *_: consumer.stop())
consumer.run(lambda record: print(record.offset, flush=True))
consumer.close()
print("closed", flush=True)
"""


def test_a_script_ends_in_order_on_sigterm(kafka_bootstrap_servers: str, topic: str) -> None:
    script = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, kafka_bootstrap_servers, topic], stdout=subprocess.PIPE, text=True
    )
    try:
        assert script.stdout is not None
        for offset in range(RECORDS):
            assert script.stdout.readline() == f"{offset}\n"
        os.kill(script.pid, signal.SIGTERM)  # while it waits for more
        assert script.communicate(timeout=20)[0] == "closed\n"
        assert script.returncode == 0
    finally:
        script.kill()
        script.wait()


def test_from_beginning_holds_where_nothing_was_committed(kafka: Kafka, pool: ConnectionPool, topic: str) -> None:
    partition = TopicPartition(topic, 0)

    def start(group_id: str, from_beginning: bool | None, **options: Any) -> int:
        """The offset where a new consumer of the group starts; it commits that it read one record, if there was any."""
        with kafka.consumer(group_id=group_id, connection_pool=pool, **options) as consumer:
            consumer.subscribe([topic], from_beginning=from_beginning)
            read: list[Any] = []

            def started() -> bool:
                read.extend(consumer.poll(timeout_ms=100, max_records=1).get(partition, ()))
                return bool(read) or (bool(consumer.assignment()) and consumer.position(partition) == RECORDS)

            eventually(started, 30, "it has the partition")
            consumer.commit()
            return int(read[0].offset) if read else RECORDS

    assert start(f"{topic}-1", from_beginning=True) == 0
    assert start(f"{topic}-1", from_beginning=False) == 1, "the group has committed"
    assert start(f"{topic}-2", from_beginning=False, auto_offset_reset="earliest") == RECORDS
    assert start(f"{topic}-3", from_beginning=None) == RECORDS, "kafka-python's default is the latest"
    assert start(f"{topic}-4", from_beginning=None, auto_offset_reset="earliest") == 0
