"""Calls of several threads that could wait for each other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest
from kafka.errors import KafkaError, NotLeaderForPartitionError
from kafka.structs import OffsetAndMetadata, TopicPartition

from pooledkafka import ConnectionPool, Consumer, Kafka, PoolClosedError, PoolTimeoutError
from pooledkafka._wire import engine
from pooledkafka.testing import EmbeddedKafka, Error, Hold
from tests.pooled.calling import Call
from tests.pooled.waiting import TIMEOUT_S, until
from tests.pooled.writing import Writer


class AttachedClient:
    """A client whose end takes until ``go_on``."""

    kind = "consumer"

    def __init__(self) -> None:
        self.ending, self.go_on = threading.Event(), threading.Event()

    def _tell_to_end(self) -> None:
        """It ends when it may."""

    def _detach(self, timeout_ms: float, wait_ms: float) -> bool:
        self.ending.set()
        assert self.go_on.wait(TIMEOUT_S)
        return True

    def _waits_for_me(self) -> bool:
        return False


def sender_threads() -> int:
    return sum("network-thread" in thread.name for thread in threading.enumerate())


def test_a_first_use_does_not_wait_for_a_disconnect_that_will_wait_for_it(kafka: Kafka, pool: ConnectionPool) -> None:
    admin, slow = kafka.admin(connection_pool=pool), AttachedClient()
    pool._attach(slow)
    pool._attach(admin)  # its first use has come so far, and failed then
    disconnecting = Call(pool.disconnect)
    assert slow.ending.wait(TIMEOUT_S)
    using = Call(getattr, admin, "list_topics")
    assert isinstance(using.ended(), PoolClosedError)
    slow.go_on.set()
    assert disconnecting.ended() is None


def test_a_handler_may_disconnect_while_another_thread_does(
    kafka: Kafka, pool: ConnectionPool, consumer: Callable[..., Consumer], cluster: EmbeddedKafka, writer: Writer
) -> None:
    topic = cluster.create_topic("orders")
    writer.write(topic, 1)
    reading, heard, refused = consumer(topic), threading.Event(), []

    def handler(_: Any) -> None:
        heard.set()
        until(lambda: pool._ending is not None)
        pool.disconnect()  # returns, and the other one goes on when this handler returns
        for use in (
            pool.connect,
            kafka.producer(connection_pool=pool).metrics,
            kafka.admin(connection_pool=pool).close,
        ):
            try:
                use()
            except PoolClosedError as error:
                refused.append(str(error))

    running = Call(reading.run, handler)
    assert heard.wait(TIMEOUT_S)
    disconnecting = Call(pool.disconnect)
    assert running.ended() is None
    assert disconnecting.ended() is None
    assert [error.partition(";")[2] for error in refused] == [
        " call connect() after that",
        " call connect() to use its clients again",
    ]
    pool.connect()


def test_a_rebalance_listener_may_disconnect_while_another_thread_does(
    pool: ConnectionPool, consumer: Callable[..., Consumer], cluster: EmbeddedKafka
) -> None:
    topic, called = cluster.create_topic("orders"), threading.Event()

    class Listener:
        def on_partitions_revoked(self, revoked: Any) -> None:
            if revoked:
                pool.disconnect()
                with pytest.raises(PoolClosedError):
                    pool.connect()
                called.set()

        def on_partitions_assigned(self, _: Any) -> None: ...

    reading = consumer(group_id="g")
    reading.subscribe([topic], listener=Listener())
    until(lambda: reading.poll(timeout_ms=100) or reading.assignment())
    assert Call(pool.disconnect).ended() is None
    assert called.is_set()


def test_a_callback_of_a_record_may_disconnect_while_another_thread_does(
    kafka: Kafka, pool: ConnectionPool, cluster: EmbeddedKafka
) -> None:
    topic = cluster.create_topic("orders")
    producer, called = kafka.producer(connection_pool=pool), threading.Event()

    def callback(_: Any) -> None:
        until(lambda: pool._ending is not None)
        pool.disconnect()
        called.set()

    with cluster.intercept("Produce", Hold(), times=1) as held:
        producer.send(topic, b"x").add_callback(callback)
        held.wait_for(1)
        disconnecting = Call(pool.disconnect)
        until(lambda: pool._ending is not None)
        held.release()
        assert disconnecting.ended() is None
    assert called.is_set()


def test_a_producer_made_while_the_pool_disconnects_leaves_no_thread(
    kafka: Kafka, pool: ConnectionPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    attach = pool._attach_producer

    def overtaken(producer: Any) -> Any:
        connection = attach(producer)
        assert Call(pool.disconnect).ended() is None
        return connection

    before, producer = sender_threads(), kafka.producer(connection_pool=pool)
    monkeypatch.setattr(pool, "_attach_producer", overtaken)
    with pytest.raises(PoolClosedError):
        producer.send("orders", b"x")
    assert sender_threads() == before


def test_waiting_for_another_threads_connect_is_bounded_and_no_consumer_waits_to_be_closed(
    kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    connecting, go_on = threading.Event(), threading.Event()
    start = engine.Engine.start

    def slowly(self: Any, timeout_ms: float) -> None:
        connecting.set()
        assert go_on.wait(TIMEOUT_S)
        start(self, timeout_ms)

    monkeypatch.setattr(engine.Engine, "start", slowly)
    pool = kafka.connection_pool()
    consumer = kafka.consumer("orders", connection_pool=pool)
    polling = Call(consumer.poll)
    assert connecting.wait(TIMEOUT_S)
    with pytest.raises(PoolTimeoutError, match="could not be connected within 10 ms: another thread is connecting"):
        pool.connect(timeout_ms=10)
    with pytest.raises(PoolTimeoutError, match="could not be disconnected within 10 ms"):
        pool.disconnect(timeout_ms=10)
    consumer.close(timeout_ms=0)
    go_on.set()
    assert isinstance(polling.ended(), PoolClosedError)
    pool.disconnect()


@pytest.mark.parametrize("api", ["AddOffsetsToTxn", "EndTxn"])
@pytest.mark.parametrize("by", ["disconnect", "close"])
def test_a_transactional_call_ends_with_its_producer(
    kafka: Kafka, pool: ConnectionPool, cluster: EmbeddedKafka, api: str, by: str
) -> None:
    topic = cluster.create_topic("orders")
    producer = kafka.producer(connection_pool=pool, transactional_id="t")
    producer.init_transactions()
    producer.begin_transaction()
    producer.send(topic, b"x").get(timeout=TIMEOUT_S)
    offsets = {TopicPartition(topic, 0): OffsetAndMetadata(0, "", -1)}
    with cluster.intercept(api, Hold()) as held:
        if api == "EndTxn":
            waiting = Call(producer.commit_transaction)
        else:
            waiting = Call(producer.send_offsets_to_transaction, offsets, "g")
        held.wait_for(1)
        ending = Call(producer.close if by == "close" else pool.disconnect, 200)
        error = waiting.ended()
        assert isinstance(error, PoolClosedError)
        assert "whether that was carried out is not known" in str(error)
        ending.ended()


def test_a_transactional_call_of_a_producer_that_has_ended_does_not_wait(kafka: Kafka, pool: ConnectionPool) -> None:
    producer = kafka.producer(connection_pool=pool, transactional_id="t")
    producer.metrics()
    overtaken = producer._sender
    assert overtaken is not None
    pool.disconnect()
    assert isinstance(Call(overtaken.kafka.init_transactions).ended(), PoolClosedError)


def test_a_record_that_comes_as_its_sender_ends_is_not_waited_for_in_vain(
    kafka: Kafka, pool: ConnectionPool, cluster: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = cluster.create_topic("orders")
    producer = kafka.producer(connection_pool=pool)
    producer.send(topic, b"first").get(timeout=TIMEOUT_S)
    assert producer._sender is not None
    accumulator = producer._sender.kafka._accumulator
    futures: list[Any] = []

    def overtaken() -> bool:
        if accumulator._closed and not futures:
            # Another thread is in the middle of send(): it has seen that the accumulator is open.
            accumulator._closed = False
            futures.append(accumulator.append(TopicPartition(topic, 0), 0, None, b"last", [])[0])
            accumulator._closed = True
        return not futures

    monkeypatch.setattr(accumulator, "has_undrained", overtaken)
    with pytest.raises(PoolTimeoutError, match=r"1 records \(1 of orders\) could not be delivered"):
        pool.disconnect()
    assert futures[0].is_done


def test_a_call_that_disconnect_did_not_wait_for_says_so(
    pool: ConnectionPool, consumer: Callable[..., Consumer], cluster: EmbeddedKafka, writer: Writer
) -> None:
    topic = cluster.create_topic("orders")
    writer.write(topic, 1)
    reading, heard, disconnected = consumer(topic, group_id="g"), threading.Event(), threading.Event()
    refused: list[BaseException] = []

    def handler(record: Any) -> None:
        heard.set()
        assert disconnected.wait(TIMEOUT_S)
        for call in (reading.commit, reading.topics, reading.poll):
            try:
                call()
            except Exception as error:
                refused.append(error)
        reading.close()

    running = Call(reading.run, handler)
    assert heard.wait(TIMEOUT_S)
    pool.disconnect(timeout_ms=0)
    disconnected.set()
    assert running.ended() is None
    assert [isinstance(error, PoolClosedError) for error in refused] == [True] * 3, refused


def test_a_call_in_which_the_pool_is_disconnected_says_so(
    kafka: Kafka, pool: ConnectionPool, consumer: Callable[..., Consumer], cluster: EmbeddedKafka
) -> None:
    topic = cluster.create_topic("orders")
    reading = consumer(topic, group_id="g")
    admin = kafka.admin(connection_pool=pool)
    with cluster.intercept("ListOffsets", Hold()) as offsets, cluster.intercept("CreateTopics", Hold()) as topics:
        waiting = [
            Call(reading.end_offsets, [TopicPartition(topic, 0)]),
            Call(lambda: admin.create_topics({"new": {"num_partitions": 1, "replication_factor": 1}})),
        ]
        offsets.wait_for(1)
        topics.wait_for(1)
        pool.disconnect(timeout_ms=0)
        for each in waiting:
            assert isinstance(each.ended(), PoolClosedError)


def test_a_listener_may_leave_out_what_is_revoked_when_lost(
    consumer: Callable[..., Consumer], cluster: EmbeddedKafka
) -> None:
    topic, revoked = cluster.create_topic("orders"), []

    class Listener:
        def on_partitions_revoked(self, partitions: Any) -> None:
            revoked.extend(partitions)

        def on_partitions_assigned(self, partitions: Any) -> None: ...

    reading = consumer(group_id="g", enable_auto_commit=False)
    reading.subscribe([topic], listener=Listener())
    until(lambda: reading.poll(timeout_ms=100) or reading.assignment())
    assert reading._wired is not None
    reading._wired.kafka._coordinator.reset_generation()  # as where the group has put it out
    reading.close()
    assert revoked == [TopicPartition(topic, 0)]


def test_a_record_that_waits_for_its_topic_is_refused_when_the_pool_is_disconnected(
    kafka: Kafka, pool: ConnectionPool, cluster: EmbeddedKafka
) -> None:
    producer = kafka.producer(connection_pool=pool)
    producer.metrics()
    with cluster.intercept("Metadata", Hold()) as held:
        sending = [Call(producer.send, topic, b"x") for topic in ("new", "newer")]
        held.wait_for(1)
        pool.disconnect(timeout_ms=200)
        for each in sending:
            assert isinstance(each.ended(), PoolClosedError)


def test_a_record_that_comes_after_its_sender_has_ended_is_refused(
    kafka: Kafka, pool: ConnectionPool, cluster: EmbeddedKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    topic = cluster.create_topic("orders")
    producer = kafka.producer(connection_pool=pool)
    producer.send(topic, b"first").get(timeout=TIMEOUT_S)
    overtaken = producer._sender
    pool.disconnect()
    monkeypatch.setattr(producer, "_opened", lambda: overtaken)  # found just before
    with pytest.raises(PoolClosedError, match="the record was not sent"):
        producer.send(topic, b"second")


def test_a_private_pool_that_was_connecting_when_its_consumer_was_closed_is_disconnected(
    kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    connecting, go_on = threading.Event(), threading.Event()
    start = engine.Engine.start

    def slowly(self: Any, timeout_ms: float) -> None:
        start(self, timeout_ms)
        connecting.set()
        assert go_on.wait(TIMEOUT_S)

    monkeypatch.setattr(engine.Engine, "start", slowly)
    consumer = kafka.consumer("orders")
    polling = Call(consumer.poll)
    assert connecting.wait(TIMEOUT_S)
    with pytest.raises(PoolTimeoutError):
        consumer.close(timeout_ms=0)
    go_on.set()
    assert isinstance(polling.ended(), PoolClosedError)
    assert consumer._pool._connection is None


def test_a_topic_that_another_client_leaves_is_still_the_producers(
    kafka: Kafka, pool: ConnectionPool, consumer: Callable[..., Consumer], cluster: EmbeddedKafka
) -> None:
    topic = cluster.create_topic("orders")
    reading = consumer(topic)
    until(lambda: reading.poll(timeout_ms=100) or reading.assignment())
    producer = kafka.producer(connection_pool=pool, delivery_timeout_ms=TIMEOUT_S * 1000, request_timeout_ms=5_000)
    with cluster.intercept("InitProducerId", Hold()) as held:
        future = producer.send(topic, b"x")  # whose leader is known, to the consumer
        held.wait_for(1)
        reading.close()
        pool.client.poll(future=pool.client.cluster.request_update())
        held.release()
    assert future.get(timeout=TIMEOUT_S)


def test_a_transaction_is_not_committed_without_a_record_that_could_not_be_sent(
    kafka: Kafka, pool: ConnectionPool, cluster: EmbeddedKafka
) -> None:
    topic = cluster.create_topic("orders")
    with kafka.producer(
        connection_pool=pool, transactional_id="t", delivery_timeout_ms=500, request_timeout_ms=400, linger_ms=0
    ) as producer:
        producer.init_transactions()
        producer.begin_transaction()
        producer.send(topic, b"arrives").get(timeout=TIMEOUT_S)
        with cluster.intercept("Produce", Error(NotLeaderForPartitionError)):
            late = producer.send(topic, b"does not")
            until(lambda: late.is_done)
        assert isinstance(late.exception, KafkaError)
        with pytest.raises(KafkaError):
            producer.commit_transaction()
        producer.abort_transaction()
        producer.begin_transaction()
        producer.send(topic, b"the next")
        producer.commit_transaction()
