"""Calls of several threads that could wait for each other."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from pooledkafka import ConnectionPool, Consumer, Kafka, PoolClosedError, PoolTimeoutError
from pooledkafka._wire import engine
from pooledkafka.testing import EmbeddedKafka, Hold
from tests.pooled.waiting import TIMEOUT_S, until
from tests.pooled.writing import Writer


class Call:
    """Runs on a thread of its own; what it raised is there to look at."""

    def __init__(self, call: Callable[..., Any], *args: Any) -> None:
        self.error: BaseException | None = None
        self._call, self._args = call, args
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._call(*self._args)
        except BaseException as error:
            self.error = error

    def ended(self) -> BaseException | None:
        """Wait for its end; what it raised."""
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive(), "it hangs"
        return self.error


class AttachedClient:
    """A client whose end takes until ``go_on``."""

    kind = "consumer"

    def __init__(self) -> None:
        self.ending, self.go_on = threading.Event(), threading.Event()

    def _detach(self, timeout_ms: float) -> None:
        self.ending.set()
        assert self.go_on.wait(TIMEOUT_S)

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
