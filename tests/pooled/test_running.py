"""A consumer that is run: what it does with records that cannot be handled, and when it ends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from kafka.errors import KafkaError, TopicAuthorizationFailedError
from kafka.serializer import Deserializer
from kafka.structs import TopicPartition

from pooledkafka import ConfigurationError, ConnectionPool, Consumer, ErrorLimitError, Kafka
from pooledkafka._run.dead_letters import DeadLetters
from pooledkafka.testing import EmbeddedKafka, Error, Hold
from tests.pooled.reading import Reader, read
from tests.pooled.waiting import TIMEOUT_S, until
from tests.pooled.writing import Writer

ORDERS = TopicPartition("orders", 0)


@pytest.fixture(autouse=True)
def _topics(cluster: EmbeddedKafka) -> None:
    cluster.create_topic("orders")
    cluster.create_topic("dead")


@pytest.fixture
def billing(consumer: Callable[..., Consumer]) -> Consumer:
    return consumer("orders", group_id="billing", enable_auto_commit=False)


class Failing:
    """A handler that cannot handle some values, for the first so many times."""

    def __init__(self, *values: bytes, times: int = 1_000) -> None:
        self.values = values
        self.times = times
        self.called_with: list[bytes] = []

    def __call__(self, record: Any) -> None:
        self.called_with.append(record.value)
        if record.value in self.values and self.called_with.count(record.value) <= self.times:
            raise LookupError(f"no customer {record.value!r}")


def dead_letters(consumer: Callable[..., Consumer], count: int) -> list[Any]:
    reading = consumer("dead", group_id=None)
    records: list[Any] = []

    def more() -> int:
        for batch in reading.poll(timeout_ms=100).values():
            records.extend(batch)
        return len(records)

    until(more, lambda got: got >= count)
    assert len(records) == count
    return records


def committed(consumer: Consumer) -> Any:
    return consumer.committed(ORDERS)


def test_a_handler_that_fails_is_called_again(billing: Consumer, writer: Writer) -> None:
    writer.write("orders", 3)
    handler = Failing(b"1", times=2)
    billing.run(handler, retries=2, backoff_ms=1, stop_after=3)
    assert handler.called_with == [b"0", b"1", b"1", b"1", b"2"]
    assert committed(billing) == 3


def test_what_cannot_be_handled_goes_to_the_dead_letters_with_the_reason(
    billing: Consumer, consumer: Callable[..., Consumer], writer: Writer
) -> None:
    writer.write("orders")
    sent = writer.producer.send("orders", b"bad", key=b"k", headers=[("trace", b"17")], partition=0)
    sent.get(timeout=TIMEOUT_S)
    writer.write("orders")
    handler = Failing(b"bad")
    billing.run(handler, retries=1, backoff_ms=1, dead_letter_topic="dead", until_end=True)
    assert handler.called_with == [b"0", b"bad", b"bad", b"1"]
    assert committed(billing) == 3
    (dead,) = dead_letters(consumer, 1)
    assert (dead.key, dead.value) == (b"k", b"bad")
    headers = dict(dead.headers)
    assert headers["trace"] == b"17"
    assert int(headers.pop("dead-letter.timestamp")) > 0
    assert b"raise LookupError" in headers.pop("dead-letter.error.traceback")
    del headers["trace"]
    assert headers == {
        "dead-letter.topic": b"orders",
        "dead-letter.partition": b"0",
        "dead-letter.offset": b"1",
        "dead-letter.group": b"billing",
        "dead-letter.attempts": b"2",
        "dead-letter.error.type": b"builtins.LookupError",
        "dead-letter.error.message": b"no customer b'bad'",
    }


class Number(Deserializer):  # type: ignore[misc]
    def deserialize(self, topic: str, headers: Any, data: bytes) -> int:
        return int(data)


def test_what_cannot_be_read_goes_there_as_it_was_written(consumer: Callable[..., Consumer], writer: Writer) -> None:
    writer.producer.send("orders", b"x1", partition=0).get(timeout=TIMEOUT_S)
    writer.write("orders", 2)
    got: list[Any] = []
    numbers = consumer("orders", group_id="numbers", value_deserializer=Number())
    numbers.run(lambda record: got.append(record.value), dead_letter_topic="dead", until_end=True, retries=5)
    assert got == [0, 1]
    (dead,) = dead_letters(consumer, 1)
    assert dead.value == b"x1"
    assert dict(dead.headers)["dead-letter.attempts"] == b"0"
    assert dict(dead.headers)["dead-letter.error.type"] == b"builtins.ValueError"


def test_without_dead_letters_what_cannot_be_read_ends_the_run_after_what_can(
    consumer: Callable[..., Consumer], writer: Writer
) -> None:
    writer.write("orders", 2)
    writer.producer.send("orders", b"x1", partition=0).get(timeout=TIMEOUT_S)
    numbers = consumer("orders", group_id="numbers", value_deserializer=Number(), enable_auto_commit=False)
    got: list[Any] = []
    for _ in range(2):
        with pytest.raises(ValueError, match="x1"):
            numbers.run(lambda record: got.append(record.value))
    assert got == [0, 1]
    assert committed(numbers) == 2
    numbers.seek(ORDERS, 0)
    batches = numbers.poll(timeout_ms=10_000, max_records=2)
    assert [record.value for record in batches[ORDERS]] == [0, 1], "a poll deserializes by itself again"


def test_what_is_as_large_as_a_broker_takes_goes_there_too(
    billing: Consumer, consumer: Callable[..., Consumer], cluster: EmbeddedKafka
) -> None:
    with Kafka(**cluster.client_options()).producer(max_request_size=2_000_000) as producer:
        producer.send("orders", b"x" * 1_048_400, partition=0).get(timeout=TIMEOUT_S)
    billing.run(Failing(b"x" * 1_048_400), dead_letter_topic="dead", until_end=True)
    (dead,) = dead_letters(consumer, 1)
    assert len(dead.value) == 1_048_400


def test_what_kafka_python_cannot_write_goes_there_with_a_note(
    pool: ConnectionPool, consumer: Callable[..., Consumer]
) -> None:
    letters = DeadLetters("dead", pool, "billing")
    record = SimpleNamespace(
        topic="orders", partition=0, offset=7, timestamp=0, key=None, value=None, headers=[("trace", None), ("a", b"b")]
    )
    assert letters.add([record], LookupError(), 1, lambda: True)
    letters.close()
    (dead,) = dead_letters(consumer, 1)
    assert dead.value == b""
    headers = dict(dead.headers)
    assert (headers["trace"], headers["a"], headers["dead-letter.null"]) == (b"", b"b", b"value,header trace")


def test_a_stop_ends_the_wait_for_the_dead_letters(
    cluster: EmbeddedKafka, billing: Consumer, running: Callable[..., threading.Thread], writer: Writer
) -> None:
    writer.write("orders", 2)
    handler = Failing(b"1")
    with cluster.intercept("Produce", Hold()) as hold:
        thread = running(handler, dead_letter_topic="dead")
        hold.wait_for(1)
        billing.stop()
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()
    assert committed(billing) == 1


def test_a_handler_may_poll_its_consumer_and_run_it(consumer: Callable[..., Consumer], writer: Writer) -> None:
    writer.write("orders", 6)
    numbers = consumer("orders", group_id="numbers", value_deserializer=Number(), enable_auto_commit=False)
    got: list[Any] = []

    def handler(record: Any) -> None:
        got.append(record.value)
        if record.value == 1:
            for records in numbers.poll(timeout_ms=5_000, max_records=1).values():
                got.extend(each.value for each in records)
        if record.value == 3:
            numbers.run(lambda each: got.append(each.value), stop_after=1)

    numbers.run(handler, until_end=True)
    assert all(isinstance(value, int) for value in got)
    assert set(got) == set(range(6))


def test_a_coroutine_function_is_refused(billing: Consumer) -> None:
    async def handler(record: Any) -> None:
        pytest.fail("it runs")

    with pytest.raises(ConfigurationError, match="coroutine function"):
        billing.run(handler)


def test_too_many_in_a_row_end_the_run(billing: Consumer, consumer: Callable[..., Consumer], writer: Writer) -> None:
    values = writer.write("orders", 6)
    handler = Failing(*values[1:])
    with pytest.raises(ErrorLimitError, match="3 records in a row"):
        billing.run(handler, dead_letter_topic="dead", error_limit=3)
    assert handler.called_with == values[:4]
    assert committed(billing) == 4, "they are in the dead-letter topic"
    assert [record.value for record in dead_letters(consumer, 3)] == values[1:4]
    assert read(billing, 2) == values[4:]


def test_what_the_dead_letters_do_not_take_is_handled_again(
    cluster: EmbeddedKafka, billing: Consumer, writer: Writer
) -> None:
    writer.write("orders", 3)
    handler = Failing(b"1")
    with (
        cluster.intercept("Produce", Error(TopicAuthorizationFailedError)),
        pytest.raises(KafkaError, match="dead"),
    ):
        billing.run(handler, dead_letter_topic="dead")
    assert committed(billing) == 1
    handler.times = 1
    billing.run(handler, dead_letter_topic="dead", until_end=True)
    assert handler.called_with == [b"0", b"1", b"1", b"2"]


def test_a_handler_of_batches_gets_one_partitions_records_at_a_time(
    cluster: EmbeddedKafka, consumer: Callable[..., Consumer], writer: Writer
) -> None:
    cluster.create_topic("pair", partitions=2)
    for partition in (0, 1):
        writer.write("pair", 10, partition=partition)
    got: dict[int, list[bytes]] = {0: [], 1: []}

    def handler(records: list[Any]) -> None:
        assert len(records) <= 4
        (partition,) = {record.partition for record in records}
        got[partition] += [record.value for record in records]

    pairs = consumer("pair", group_id="pairs")
    pairs.run(handler, batches=True, max_records=4, until_end=True)
    assert got == {partition: writer.written("pair", partition) for partition in (0, 1)}


def test_a_batch_that_fails_comes_again_as_a_whole(billing: Consumer, writer: Writer) -> None:
    writer.write("orders", 5)
    got: list[list[bytes]] = []

    def handler(records: list[Any]) -> None:
        got.append([record.value for record in records])
        if len(got) == 1:
            raise OSError

    billing.run(handler, batches=True, retries=1, backoff_ms=1, stop_after=3)
    assert got == [writer.written("orders")[:3]] * 2
    assert committed(billing) == 3


# -- when it ends ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 7, 30])
def test_it_ends_after_exactly_so_many(billing: Consumer, writer: Writer, count: int) -> None:
    values = writer.write("orders", 40)
    got: list[bytes] = []
    billing.run(lambda record: got.append(record.value), stop_after=count)
    assert got == values[:count]
    assert committed(billing) == count
    assert read(billing, 40 - count) == values[count:]


def test_it_ends_with_what_was_there(billing: Consumer, writer: Writer) -> None:
    values = writer.write("orders", 5)
    got: list[bytes] = []

    def handler(record: Any) -> None:
        got.append(record.value)
        if len(got) == 1:
            values.extend(writer.write("orders", 5))

    billing.run(handler, until_end=True, max_records=1)
    assert got == values[:5]
    billing.run(lambda record: got.append(record.value), until_end=True)
    assert got == values
    billing.run(lambda record: pytest.fail("there is nothing left"), until_end=True)


def test_it_ends_where_a_transaction_does(
    kafka: Kafka, pool: ConnectionPool, consumer: Callable[..., Consumer], writer: Writer
) -> None:
    with kafka.producer(connection_pool=pool, transactional_id="t") as producer:
        producer.init_transactions()
        for commit in (True, False):
            producer.begin_transaction()
            producer.send("orders", b"%d" % commit, partition=0)
            producer.flush()
            (producer.commit_transaction if commit else producer.abort_transaction)()
    got: list[bytes] = []
    reading = consumer("orders", group_id="exact", isolation_level="read_committed")
    reading.run(lambda record: got.append(record.value), until_end=True)
    assert got == [b"1"]


def test_it_ends_where_there_is_nothing(consumer: Callable[..., Consumer]) -> None:
    consumer("orders", group_id="none").run(lambda record: pytest.fail("there is nothing"), until_end=True)
    assigned = consumer(group_id=None)
    assigned.assign([ORDERS])
    assigned.run(lambda record: pytest.fail("there is nothing"), until_end=True)


@pytest.fixture
def running(billing: Consumer) -> Iterator[Callable[..., threading.Thread]]:
    """Runs the consumer on a thread; it is stopped after the test."""
    threads: list[threading.Thread] = []

    def start(handler: Callable[[Any], None], **options: Any) -> threading.Thread:
        thread = threading.Thread(target=lambda: billing.run(handler, **options))
        threads.append(thread)
        thread.start()
        return thread

    yield start
    billing.stop()
    for thread in threads:
        thread.join(TIMEOUT_S)
        assert not thread.is_alive()


def test_a_stop_ends_a_pause(billing: Consumer, running: Callable[..., threading.Thread], writer: Writer) -> None:
    writer.write("orders", 2)
    handler = Failing(b"1")
    thread = running(handler, retries=1, backoff_ms=600_000, backoff_max_ms=600_000)
    until(lambda: b"1" in handler.called_with)
    billing.stop()
    thread.join(TIMEOUT_S)
    assert not thread.is_alive()
    assert handler.called_with == [b"0", b"1"]
    assert committed(billing) == 1


def test_a_rebalance_does_not_wait_for_a_pause(
    billing: Consumer,
    running: Callable[..., threading.Thread],
    reader: Callable[..., Reader],
    writer: Writer,
) -> None:
    writer.write("orders", 2)
    handler = Failing(b"1")
    running(handler, retries=1, backoff_ms=600_000, backoff_max_ms=600_000)
    until(lambda: b"1" in handler.called_with)
    other = reader("orders", group_id="billing")
    until(lambda: other.values == [b"1"] or handler.called_with.count(b"1") > 1)  # whoever has the partition then
