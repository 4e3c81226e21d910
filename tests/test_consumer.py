from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from kafka.structs import OffsetAndMetadata, TopicPartition

import pooledkafka.consumer as consumer_module
from pooledkafka import (
    ConcurrentUseError,
    ConfigurationError,
    ConnectionPool,
    Consumer,
    PoolClosedError,
    PoolTimeoutError,
)
from pooledkafka._wire import Interrupted, Subscriber
from tests.scripted_broker import ScriptedBroker

ORDERS = TopicPartition("orders", 0)


class FakeKafka:
    """Stands in for a KafkaConsumer: keeps what it was told, and waits in ``poll`` where the test wants it to."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []
        self.polls: Iterator[Callable[[], Any]] = iter(())

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.calls.append((name, args, kwargs))
            return set() if name in ("assignment", "paused", "topics", "partitions_for_topic") else name

        return call

    def poll(self, **kwargs: Any) -> Any:
        self.calls.append(("poll", (), kwargs))
        return next(self.polls)()

    def __next__(self) -> Any:
        return next(self.polls)()


class FakeWired:
    """Stands in for a WiredConsumer."""

    made: list[FakeWired]

    def __init__(self, engine: Any, options: dict[str, Any]) -> None:
        self.engine, self.options = engine, options
        self.kafka = FakeKafka()
        self.interrupted = threading.Event()
        self.closed_with: dict[str, Any] | None = None
        self.ended = False
        self.stirred_after: list[str] = []  # the last call of ``kafka`` then
        FakeWired.made.append(self)

    def stir(self) -> None:
        self.stirred_after.append(self.kafka.calls[-1][0])

    def polling(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return call(*args, **kwargs)

    calling = polling
    over = False

    def following(self) -> Any:
        return next(self.kafka)

    def poll(self, timeout_ms: float, max_records: int | None) -> Any:
        return self.kafka.poll(timeout_ms=timeout_ms, max_records=max_records)

    def subscribe(self, subscriber: Subscriber | None, from_beginning: bool | None, **what: Any) -> None:
        self.from_beginning = from_beginning
        self.kafka.subscribe(listener=subscriber and subscriber.listener, **what)

    def resumption(self) -> None:
        """As in a group."""

    def interrupt(self) -> None:
        self.interrupted.set()

    def close(self, **how: Any) -> None:
        self.closed_with = how

    def drop(self, then: Callable[[], None]) -> None:
        """Nothing to release."""

    def wait_for_interrupt(self) -> Any:
        assert self.interrupted.wait(5)
        raise Interrupted


@pytest.fixture(autouse=True)
def made(monkeypatch: pytest.MonkeyPatch) -> list[FakeWired]:
    """The wired consumers made so far."""
    FakeWired.made = []
    monkeypatch.setattr(consumer_module, "WiredConsumer", FakeWired)
    return FakeWired.made


@pytest.fixture
def pool() -> Iterator[ConnectionPool]:
    with ScriptedBroker({"orders": 1}) as broker:
        pool = ConnectionPool(bootstrap_servers=broker.address)
        yield pool
        pool.disconnect()


@pytest.fixture
def consumer(pool: ConnectionPool) -> Consumer:
    return Consumer("orders", group_id="billing", connection_pool=pool)


class Poller(threading.Thread):
    """Another thread that is inside a poll of the consumer, until it is interrupted or let go."""

    def __init__(self, consumer: Consumer, wired: FakeWired) -> None:
        super().__init__(daemon=True)
        self.inside, self.go_on = threading.Event(), threading.Event()
        self.records: Any = None
        self._consumer = consumer
        wired.kafka.polls = iter([self._wait])
        self._wired = wired
        self.start()
        assert self.inside.wait(5)

    def _wait(self) -> Any:
        self.inside.set()
        while not self.go_on.is_set():
            if self._wired.interrupted.wait(0.01):
                raise Interrupted
        return {ORDERS: ["record"]}

    def run(self) -> None:
        self.records = self._consumer.poll(timeout_ms=600_000)

    def end(self) -> Any:
        self.go_on.set()
        self.join(5)
        assert not self.is_alive()
        return self.records


# -- making one --------------------------------------------------------------------------------------------------------


def test_nothing_connects_before_the_first_use(consumer: Consumer, pool: ConnectionPool, made: list[FakeWired]) -> None:
    assert made == []
    assert "[new |" in repr(pool)
    assert repr(consumer).startswith("<Consumer group_id='billing' [not attached] of <ConnectionPool")
    consumer.assignment()
    assert len(made) == 1
    assert pool.stats().consumers == 1
    assert "[attached]" in repr(consumer)


def test_its_options_and_the_pools_reach_kafka_python(consumer: Consumer, pool: ConnectionPool, made: Any) -> None:
    consumer.assignment()
    assert made[0].options["group_id"] == "billing"
    assert made[0].options["bootstrap_servers"] == pool.options["bootstrap_servers"]
    assert made[0].engine.client is pool.client


def test_each_call_stirs_the_next_poll_when_it_is_done_even_if_it_fails(
    consumer: Consumer, made: list[FakeWired]
) -> None:
    consumer.seek(ORDERS, 3)
    assert made[0].stirred_after == ["seek"]

    def fail(*partitions: TopicPartition) -> None:
        made[0].kafka.calls.append(("pause", partitions, {}))
        raise KeyError

    made[0].kafka.pause = fail  # type: ignore[attr-defined]
    with pytest.raises(KeyError):
        consumer.pause(ORDERS)
    assert made[0].stirred_after == ["seek", "pause"]


def test_wrong_options_are_noticed_at_once(pool: ConnectionPool) -> None:
    with pytest.raises(ConfigurationError, match="Did you mean group_id"):
        Consumer(group_di="g", connection_pool=pool)
    with pytest.raises(ConfigurationError, match="client_id='mine' was given to a consumer"):
        Consumer(client_id="mine", connection_pool=pool)
    assert pool.stats().consumers == 0


def test_without_a_pool_it_has_one_of_its_own(made: list[FakeWired]) -> None:
    with ScriptedBroker() as broker:
        consumer = Consumer("orders", bootstrap_servers=broker.address, client_id="alone", group_id="g")
        consumer.assignment()
        private = consumer._pool
        assert private.options["client_id"] == "alone"
        assert "[connected" in repr(private)
        consumer.close()
        assert "[disconnected" in repr(private), "closed with it"


# -- subscribing -------------------------------------------------------------------------------------------------------


def calls_of(wired: FakeWired, *names: str) -> list[tuple[str, tuple[Any, ...], dict[str, Any]]]:
    return [call for call in wired.kafka.calls if call[0] in names]


SUBSCRIPTIONS: list[tuple[Callable[[Consumer], Any], list[tuple[str, tuple[Any, ...], dict[str, Any]]]]] = [
    (lambda consumer: consumer.assignment(), [("subscribe", (), {"topics": ("orders",), "listener": None})]),
    (
        lambda consumer: consumer.subscribe(["bills"]),
        [("subscribe", (), {"topics": ["bills"], "pattern": None, "listener": None})],
    ),
    (
        lambda consumer: consumer.subscribe(pattern="b.*"),
        [("subscribe", (), {"topics": (), "pattern": "b.*", "listener": None})],
    ),
    (lambda consumer: consumer.assign([ORDERS]), [("assign", ([ORDERS],), {})]),
    (lambda consumer: consumer.unsubscribe(), []),
]


@pytest.mark.parametrize(("how", "told"), SUBSCRIPTIONS)
def test_after_the_pool_was_disconnected_it_subscribes_again(
    consumer: Consumer, pool: ConnectionPool, made: list[FakeWired], how: Callable[[Consumer], Any], told: Any
) -> None:
    how(consumer)
    pool.disconnect()
    assert made[0].closed_with is not None
    with pytest.raises(PoolClosedError, match="was disconnected"):
        consumer.poll()
    pool.connect()
    consumer.assignment()
    assert len(made) == 2
    assert calls_of(made[1], "subscribe", "assign", "unsubscribe") == told


CALLS: list[tuple[Callable[[Consumer], Any], str, tuple[Any, ...], dict[str, Any]]] = [
    (lambda c: c.seek(ORDERS, 5), "seek", (ORDERS, 5), {}),
    (lambda c: c.seek_to_beginning(ORDERS), "seek_to_beginning", (ORDERS,), {}),
    (lambda c: c.seek_to_end(ORDERS), "seek_to_end", (ORDERS,), {}),
    (lambda c: c.position(ORDERS, timeout_ms=3), "position", (ORDERS,), {"timeout_ms": 3}),
    (lambda c: c.pause(ORDERS), "pause", (ORDERS,), {}),
    (lambda c: c.resume(ORDERS), "resume", (ORDERS,), {}),
    (lambda c: c.commit({ORDERS: OffsetAndMetadata(1, "", -1)}, timeout_ms=9), "commit", (), {"timeout_ms": 9}),
    (lambda c: c.committed(ORDERS), "committed", (ORDERS,), {"metadata": False, "timeout_ms": None}),
    (lambda c: c.highwater(ORDERS), "highwater", (ORDERS,), {}),
    (lambda c: c.offsets_for_times({ORDERS: 7}), "offsets_for_times", ({ORDERS: 7},), {}),
    (lambda c: c.group_metadata(), "group_metadata", (), {}),
    (lambda c: c.metrics(raw=True), "metrics", (True,), {}),
]


@pytest.mark.parametrize(("how", "name", "args", "kwargs"), CALLS, ids=[call[1] for call in CALLS])
def test_its_methods_are_kafka_pythons(
    consumer: Consumer, made: list[FakeWired], how: Any, name: str, args: Any, kwargs: Any
) -> None:
    how(consumer)
    (call,) = calls_of(made[0], name)
    if args:
        assert call[1] == args
    assert call[2] == kwargs


# -- one thread at a time ----------------------------------------------------------------------------------------------


def test_two_threads_at_once_are_an_error_and_no_hang(consumer: Consumer, made: list[FakeWired]) -> None:
    consumer.assignment()
    poller = Poller(consumer, made[0])
    with pytest.raises(ConcurrentUseError, match="being used by another thread"):
        consumer.poll()
    with pytest.raises(ConcurrentUseError):
        next(consumer)
    with pytest.raises(ConcurrentUseError):
        consumer.seek(ORDERS, 0)
    assert poller.end() == {ORDERS: ["record"]}, "the thread that was there first is not disturbed"
    assert consumer.assignment() == set(), "one after the other is fine"


def test_a_callback_within_a_call_may_use_the_consumer(consumer: Consumer, made: list[FakeWired]) -> None:
    def seek() -> Any:
        consumer.seek(ORDERS, 5)
        return {}

    consumer.assignment()
    made[0].kafka.polls = iter([seek])
    assert consumer.poll() == {}
    assert calls_of(made[0], "seek") == [("seek", (ORDERS, 5), {})]


def test_a_listener_that_a_call_waits_for_may_use_the_consumer(consumer: Consumer, made: list[FakeWired]) -> None:
    consumer.assignment()
    poller = Poller(consumer, made[0])  # its rebalance listener runs on this thread, say
    consumer._listening.thread = threading.get_ident()
    consumer.seek(ORDERS, 5)
    assert calls_of(made[0], "seek") == [("seek", (ORDERS, 5), {})]
    consumer._listening.thread = None
    with pytest.raises(ConcurrentUseError):
        consumer.seek(ORDERS, 5)
    poller.end()


def test_after_a_call_that_was_interrupted_before_it_let_go_another_thread_may_use_it(
    consumer: Consumer, made: list[FakeWired], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signal handler's exception may come right before ``__exit__`` does anything."""
    let_go = consumer_module._Use.__exit__
    interrupts = iter([KeyboardInterrupt])

    def interrupted(use: Any, *why: object) -> None:
        if use._taken is not None:
            for interrupt in interrupts:
                raise interrupt
        let_go(use, *why)

    monkeypatch.setattr(consumer_module._Use, "__exit__", interrupted)
    try:
        consumer.assignment()
    except KeyboardInterrupt:
        pass
    else:
        pytest.fail("it was not interrupted")
    with ThreadPoolExecutor(1) as other:
        assert other.submit(consumer.assignment).result(5) == set()


def test_after_a_call_that_failed_another_thread_may_use_it(consumer: Consumer, made: list[FakeWired]) -> None:
    consumer.assignment()

    def fail() -> Any:
        raise ValueError("cannot decode")

    made[0].kafka.polls = iter([fail])
    with pytest.raises(ValueError, match="cannot decode"):
        consumer.poll()
    seen: list[Any] = []
    other = threading.Thread(target=lambda: seen.append(consumer.assignment()), daemon=True)
    other.start()
    other.join(5)
    assert seen == [set()]


# -- waking up ---------------------------------------------------------------------------------------------------------


def test_a_wakeup_ends_a_poll_without_records(consumer: Consumer, made: list[FakeWired]) -> None:
    consumer.wakeup()  # not attached: nothing to wake
    consumer.assignment()
    poller = Poller(consumer, made[0])
    consumer.wakeup()
    poller.join(5)
    assert poller.records == {}


def test_a_wakeup_does_not_end_an_iteration(consumer: Consumer, made: list[FakeWired]) -> None:
    consumer.assignment()
    wired = made[0]
    wired.kafka.polls = iter([wired.wait_for_interrupt, lambda: "record"])
    consumer.wakeup()
    assert next(consumer) == "record"


def test_an_iteration_ends_with_consumer_timeout_ms(consumer: Consumer, made: list[FakeWired]) -> None:
    consumer.assignment()
    made[0].kafka.polls = iter([lambda: "one", lambda: "two"])  # and then StopIteration, as kafka-python says it
    assert list(consumer) == ["one", "two"]


# -- closing -----------------------------------------------------------------------------------------------------------


def test_closing_detaches_it_and_leaves_the_pool(
    consumer: Consumer, pool: ConnectionPool, made: list[FakeWired]
) -> None:
    consumer.assignment()
    consumer.close(autocommit=False, timeout_ms=900)
    how = made[0].closed_with
    assert how is not None
    assert how["autocommit"] is False
    assert 0 < how["timeout_ms"] <= 900
    assert pool.stats().consumers == 0
    assert pool.client is not None
    assert "[closed]" in repr(consumer)
    made[0].closed_with = None
    consumer.close()
    assert made[0].closed_with is None, "closed once"


def test_a_consumer_that_is_closed_says_so(consumer: Consumer, made: list[FakeWired]) -> None:
    with consumer:
        pass
    assert made == [], "never used, never made"
    for use in (consumer.poll, consumer.connect, consumer.assignment):
        with pytest.raises(PoolClosedError, match="the consumer is closed; make a new one"):
            use()
    assert list(consumer) == []


@pytest.mark.parametrize("end", ["close", "disconnect"])
def test_a_poll_in_another_thread_returns(
    consumer: Consumer, pool: ConnectionPool, made: list[FakeWired], end: str
) -> None:
    consumer.assignment()
    poller = Poller(consumer, made[0])
    consumer.close() if end == "close" else pool.disconnect()
    poller.join(5)
    assert poller.records == {}
    assert made[0].closed_with is not None


def test_an_iteration_in_another_thread_ends(consumer: Consumer, made: list[FakeWired]) -> None:
    consumer.assignment()
    wired, inside, seen = made[0], threading.Event(), []

    def wait() -> Any:
        inside.set()
        return wired.wait_for_interrupt()

    wired.kafka.polls = iter([wait])
    reader = threading.Thread(target=lambda: seen.append(list(consumer)), daemon=True)
    reader.start()
    assert inside.wait(5)
    consumer.close()
    reader.join(5)
    assert seen == [[]]


def test_a_call_that_does_not_return_is_an_error_and_can_be_closed_later(
    consumer: Consumer, made: list[FakeWired]
) -> None:
    consumer.assignment()
    inside, go_on = threading.Event(), threading.Event()

    def stubborn() -> Any:
        inside.set()
        assert go_on.wait(5)
        return {}

    made[0].kafka.polls = iter([stubborn])
    poller = threading.Thread(target=consumer.poll, daemon=True)
    poller.start()
    assert inside.wait(5)
    with pytest.raises(PoolTimeoutError, match="could not be ended within 60 ms"):
        consumer.close(timeout_ms=60)
    assert made[0].closed_with is None, "not while the other thread is in it"
    go_on.set()
    poller.join(5)
    consumer.close()
    assert made[0].closed_with is not None


def test_it_may_close_itself_from_a_callback(consumer: Consumer, made: list[FakeWired]) -> None:
    def close() -> Any:
        consumer.close(timeout_ms=1_000)
        return {}

    consumer.assignment()
    made[0].kafka.polls = iter([close])
    assert consumer.poll() == {}
    assert made[0].closed_with is not None


def test_connect_and_disconnect_act_on_the_whole_pool(consumer: Consumer, pool: ConnectionPool) -> None:
    other = Consumer(connection_pool=pool)
    consumer.connect(timeout_ms=5_000)
    assert "[connected" in repr(pool)
    other.assignment()
    consumer.disconnect(timeout_ms=5_000)
    assert "[disconnected" in repr(pool)
    with pytest.raises(PoolClosedError):
        other.poll()


@pytest.mark.parametrize("how", ["close", "disconnect"])
def test_while_another_thread_ends_it_a_call_says_so(
    consumer: Consumer, made: list[FakeWired], monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    consumer.assignment()
    closing, go_on = threading.Event(), threading.Event()

    def close(self: FakeWired, **_: Any) -> None:
        closing.set()
        assert go_on.wait(5)

    monkeypatch.setattr(FakeWired, "close", close)
    thread = threading.Thread(target=consumer.close if how == "close" else consumer.disconnect, daemon=True)
    thread.start()
    assert closing.wait(5)
    try:
        with pytest.raises(PoolClosedError):
            consumer.poll()
    finally:
        go_on.set()
        thread.join(5)


def test_a_consumer_that_could_not_be_made_is_not_counted(
    consumer: Consumer, pool: ConnectionPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise ValueError("kafka-python does not like it")

    monkeypatch.setattr(consumer_module, "WiredConsumer", fail)
    with pytest.raises(ValueError, match="does not like it"):
        consumer.poll()
    assert pool.stats().consumers == 0
