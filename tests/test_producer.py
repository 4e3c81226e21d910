from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from kafka.errors import KafkaTimeoutError, MessageSizeTooLargeError, UnknownTopicOrPartitionError
from kafka.partitioner import Partitioner
from kafka.protocol.producer import ProduceRequest, ProduceResponse

from pooledkafka import ConfigurationError, ConnectionPool, PoolClosedError, PoolTimeoutError, Producer
from tests.scripted_broker import ScriptedBroker

OPTIONS: dict[str, Any] = {"enable_idempotence": False, "acks": 1, "linger_ms": 0}
"""So that the broker needs to know nothing but Produce."""


LINGERING = {**OPTIONS, "linger_ms": 600_000, "delivery_timeout_ms": 3_600_000}


class Log:
    """Answers Produce requests once it is ``open``; an answer takes its whole request."""

    def __init__(self, broker: ScriptedBroker) -> None:
        self.open = threading.Event()
        self.open.set()
        self.error_code = 0
        broker.on(ProduceRequest, self._append)

    def _append(self, request: Any) -> Any:
        assert self.open.wait(10)
        of_topic = ProduceResponse.TopicProduceResponse
        answers = [
            of_topic(
                version=request.API_VERSION,
                name=topic.name,
                partition_responses=[
                    of_topic.PartitionProduceResponse(
                        version=request.API_VERSION,
                        index=partition.index,
                        error_code=self.error_code,
                        base_offset=7,
                        log_append_time_ms=-1,
                        log_start_offset=0,
                    )
                    for partition in topic.partition_data
                ],
            )
            for topic in request.topic_data
        ]
        return ProduceResponse(version=request.API_VERSION, responses=answers, throttle_time_ms=0)


@pytest.fixture
def broker() -> Iterator[ScriptedBroker]:
    with ScriptedBroker({"orders": 1}) as broker:
        yield broker


@pytest.fixture
def log(broker: ScriptedBroker) -> Iterator[Log]:
    log = Log(broker)
    yield log
    log.open.set()


@pytest.fixture
def pool(broker: ScriptedBroker, log: Log) -> Iterator[ConnectionPool]:
    pool = ConnectionPool(bootstrap_servers=broker.address)
    yield pool
    log.open.set()
    pool.disconnect()


@pytest.fixture
def producer(pool: ConnectionPool) -> Producer:
    return Producer(connection_pool=pool, **OPTIONS)


def senders() -> int:
    return sum(thread.name.endswith("-network-thread") for thread in threading.enumerate())


# -- sending -----------------------------------------------------------------------------------------------------------


def test_a_record_reaches_the_broker(producer: Producer, broker: ScriptedBroker) -> None:
    metadata = producer.send("orders", b"value", key=b"key").get(timeout=10)
    assert (metadata.topic, metadata.partition, metadata.offset) == ("orders", 0, 7)
    assert len(broker.requests(ProduceRequest)) == 1


def test_producers_share_one_connection(pool: ConnectionPool, broker: ScriptedBroker) -> None:
    producers = [Producer(connection_pool=pool, **OPTIONS) for _ in range(3)]
    for each in producers:
        each.send("orders", b"value").get(timeout=10)
    assert len({connection for connection, _ in broker.requests(ProduceRequest)}) == 1
    assert pool.stats().producers == 3
    assert pool.stats().connections[1]["produce"] == 1


def test_serializers_work_as_ever(pool: ConnectionPool) -> None:
    producer = Producer(connection_pool=pool, value_serializer=str.encode, **OPTIONS)
    assert producer.send("orders", "text").get(timeout=10).serialized_value_size == 4
    assert producer.partitions_for("orders") == {0}
    assert producer.metrics()


def test_an_error_of_the_broker_fails_the_record(pool: ConnectionPool, log: Log) -> None:
    log.error_code = UnknownTopicOrPartitionError.errno
    producer = Producer(connection_pool=pool, retries=0, **OPTIONS)
    with pytest.raises(UnknownTopicOrPartitionError):
        producer.send("orders", b"value").get(timeout=10)


def test_callbacks_run_on_the_senders_thread(producer: Producer, log: Log) -> None:
    names: list[str] = []
    log.open.clear()
    future = producer.send("orders", b"value").add_callback(lambda _: names.append(threading.current_thread().name))
    log.open.set()
    future.get(timeout=10)
    producer.flush(timeout=10)
    assert len(names) == 1
    assert names[0].endswith("-network-thread"), "not the I/O thread, and not the user's"


def test_a_lost_connection_is_made_again(producer: Producer, broker: ScriptedBroker) -> None:
    producer.send("orders", b"value").get(timeout=10)
    broker.hang_up()
    assert producer.send("orders", b"value").get(timeout=10).offset == 7


# -- flushing ----------------------------------------------------------------------------------------------------------


def test_flush_waits_for_all_that_was_sent(producer: Producer, log: Log) -> None:
    producer.flush()  # nothing sent, nothing to wait for, nothing attached
    log.open.clear()
    future = producer.send("orders", b"value")
    with pytest.raises(KafkaTimeoutError, match="1 records were not acknowledged within 50 ms"):
        producer.flush(timeout=0.05)
    assert not future.is_done
    log.open.set()
    producer.flush(timeout=10)
    assert future.succeeded()


def test_flush_sends_what_lingers(pool: ConnectionPool) -> None:
    producer = Producer(connection_pool=pool, **LINGERING)
    future = producer.send("orders", b"value")
    producer.flush(timeout=10)
    assert future.succeeded()
    assert not producer._opened().kafka._accumulator.flush_in_progress(), "later records linger again"


# -- closing -----------------------------------------------------------------------------------------------------------


def test_closing_delivers_what_is_buffered_and_leaves_the_others(pool: ConnectionPool) -> None:
    other = Producer(connection_pool=pool, **OPTIONS)
    with Producer(connection_pool=pool, **LINGERING) as producer:
        futures = [producer.send("orders", b"value") for _ in range(10)]
    assert all(future.succeeded() for future in futures)
    assert "[closed]" in repr(producer)
    assert other.send("orders", b"value").get(timeout=10).offset == 7
    assert pool.stats().producers == 1


def test_closing_says_how_much_was_not_delivered(producer: Producer, log: Log) -> None:
    log.open.clear()
    futures = [producer.send("orders", b"value") for _ in range(3)]
    with pytest.raises(PoolTimeoutError, match=r"the producer is closed, but .*3 records were not acknowledged"):
        producer.close(timeout_ms=50)
    producer.close()
    log.open.set()
    assert [future.get(timeout=10).topic for future in futures] == ["orders"] * 3, "still sent, as the error says"


def test_disconnecting_delivers_and_connecting_works_again(producer: Producer, pool: ConnectionPool) -> None:
    future = producer.send("orders", b"value")
    producer.disconnect()
    assert future.succeeded()
    assert senders() == 0
    with pytest.raises(PoolClosedError, match="was disconnected"):
        producer.send("orders", b"value")
    producer.connect()
    assert producer.send("orders", b"value").get(timeout=10).offset == 7


def test_disconnecting_counts_what_was_not_delivered(producer: Producer, pool: ConnectionPool, log: Log) -> None:
    log.open.clear()
    futures = [producer.send("orders", b"value") for _ in range(3)]
    with pytest.raises(PoolTimeoutError, match=r"3 records \(3 of orders\) could not be delivered within 50 ms"):
        pool.disconnect(timeout_ms=50)
    log.open.set()
    assert all(future.failed() for future in futures)
    assert senders() == 0


def test_a_producer_that_is_closed_says_so(producer: Producer, pool: ConnectionPool) -> None:
    producer.close()
    for use in (lambda: producer.send("orders", b"value"), producer.connect, lambda: producer.partitions_for("orders")):
        with pytest.raises(PoolClosedError, match="the producer is closed; make a new one"):
            use()
    producer.flush()
    assert "[new |" in repr(pool), "a producer that was never used connects nothing"


def test_without_a_pool_it_has_one_of_its_own(broker: ScriptedBroker, log: Log) -> None:
    producer = Producer(bootstrap_servers=broker.address, **OPTIONS)
    producer.send("orders", b"value").get(timeout=10)
    private = producer._pool
    producer.close()
    assert "[disconnected" in repr(private)


def test_wrong_options_are_noticed_at_once(pool: ConnectionPool) -> None:
    with pytest.raises(ConfigurationError, match="Did you mean linger_ms"):
        Producer(linger_m=5, connection_pool=pool)
    with pytest.raises(ConfigurationError, match="client_id='mine' was given to a producer"):
        Producer(client_id="mine", connection_pool=pool)


def test_a_transactional_id_belongs_to_one_handle_at_a_time(pool: ConnectionPool) -> None:
    first = Producer(connection_pool=pool, transactional_id="till-1")
    other = Producer(connection_pool=pool, transactional_id="till-2")
    again = Producer(connection_pool=pool, transactional_id="till-1")
    first.metrics()
    other.metrics()
    with pytest.raises(ConfigurationError, match="transactional_id='till-1' belongs to another producer"):
        again.metrics()
    first.close()
    again.metrics()
    again.close()
    other.close()


def test_handles_of_equal_settings_share_a_sender_and_others_do_not(pool: ConnectionPool) -> None:
    for _ in range(3):
        Producer(connection_pool=pool, value_serializer=str.encode, **OPTIONS).send("orders", "text").get(timeout=10)
    assert senders() == 1
    Producer(connection_pool=pool, **{**OPTIONS, "acks": "all"}).send("orders", b"value").get(timeout=10)
    assert senders() == 2


def test_a_batch_is_one_future(producer: Producer) -> None:
    records = producer.send_batch("orders", [{"value": b"one"}, {"value": b"two", "key": b"k"}]).get(timeout=10)
    assert [record.topic for record in records] == ["orders", "orders"]
    assert producer.send_batch("orders", []).get(timeout=0) == []
    with pytest.raises(ConfigurationError, match="'valeu' is not a field of a message"):
        producer.send_batch("orders", [{"value": b"one"}, {"valeu": b"two"}])


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        ([b"one"], "a message is a mapping such as .*, not an instance of bytes"),
        ("text", "a message is a mapping such as .*, not an instance of str"),
        ({"value": b"one"}, "takes several messages, such as a list of them, not an instance of dict"),
        (5, "takes several messages, such as a list of them, not an instance of int"),
        ([dict], "a message is a mapping such as .*, not an instance of type"),
        ([{"value": b"one", 5: b"two"}], "5 is not a field of a message"),
    ],
)
def test_what_is_no_batch_is_refused(producer: Producer, messages: Any, told: str) -> None:
    with pytest.raises(ConfigurationError, match=told):
        producer.send_batch("orders", messages)


def test_after_a_record_that_cannot_be_sent_no_more_of_its_batch_are(
    producer: Producer, broker: ScriptedBroker
) -> None:
    records = producer.send_batch("orders", [{"value": b"one"}, {"value": b"x" * 2_000_000}, {"value": b"three"}])
    with pytest.raises(MessageSizeTooLargeError):
        records.get(timeout=10)
    producer.flush(timeout=10)
    ((_, request),) = broker.requests(ProduceRequest)
    (topic,) = request.topic_data
    assert b"one" in bytes(topic.partition_data[0].records)
    assert all(b"three" not in bytes(partition.records) for partition in topic.partition_data)


class First(Partitioner):  # type: ignore[misc]
    """The first partition."""

    def partition(self, *_: Any, **__: Any) -> int:
        return 0


def senders_of(pool: ConnectionPool) -> int:
    return sum(thread.name.endswith("network-thread") for thread in threading.enumerate())


def test_senders_with_objects_of_their_own_do_not_pile_up(pool: ConnectionPool) -> None:
    one = First()
    for _ in range(3):
        with Producer(connection_pool=pool, partitioner=one, **OPTIONS) as producer:
            producer.send("orders", b"x").get(timeout=5)
    assert senders_of(pool) == 1, "those that have the same object share one, though it had no handle in between"
    with Producer(connection_pool=pool, partitioner=one, **OPTIONS) as kept:
        kept.send("orders", b"x").get(timeout=5)
        for _ in range(20):
            with Producer(connection_pool=pool, partitioner=First(), **OPTIONS) as producer:
                producer.send("orders", b"x").get(timeout=5)
        assert senders_of(pool) == 9, "the last eight, and the one in use"
        kept.send("orders", b"x").get(timeout=5)


def test_a_sender_with_records_to_deliver_is_kept(pool: ConnectionPool, log: Log) -> None:
    log.open.clear()
    futures = []
    for _ in range(12):
        producer = Producer(connection_pool=pool, partitioner=First(), **OPTIONS)
        futures.append(producer.send("orders", b"x"))
        with pytest.raises(PoolTimeoutError, match="They will still be sent while the pool is connected"):
            producer.close(timeout_ms=1)
    log.open.set()
    assert [future.get(timeout=5).offset for future in futures] == [7] * 12


@pytest.mark.parametrize("partitioner", [lambda *_: 0, None], ids=["function", "none"])
def test_a_partitioner_that_is_none_is_refused(pool: ConnectionPool, partitioner: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"has no method partition\(\); give an object"):
        Producer(connection_pool=pool, partitioner=partitioner)


def test_threads_that_send_for_the_first_time_at_once_share_one_sender(pool: ConnectionPool) -> None:
    producer, start = Producer(connection_pool=pool, **OPTIONS), threading.Barrier(4)
    futures: list[Any] = []

    def send() -> None:
        start.wait(5)
        futures.append(producer.send("orders", b"value"))

    threads = [threading.Thread(target=send, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert [future.get(timeout=10).topic for future in futures] == ["orders"] * 4
    assert senders() == 1
    assert pool.stats().producers == 1
