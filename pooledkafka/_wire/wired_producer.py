"""kafka-python's producer over a pool's engine."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError, KafkaTimeoutError
from kafka.producer.transaction_manager import TransactionState

from pooledkafka._wire.engine import Engine
from pooledkafka._wire.lanes import Lane
from pooledkafka._wire.producer_facade import ProducerFacade
from pooledkafka._wire.sending import TopicSender
from pooledkafka._wire.tally import WatchedBatches
from pooledkafka.errors import PoolClosedError

__all__ = ["WiredProducer", "with_grace"]

BATCH_BYTES = 1_000_000
"""Of a batch, if a producer does not say otherwise: a little less than a broker takes (``message.max.bytes``).

kafka-python's 16 KB cost it most of its throughput. A batch is sent as soon as its broker may be sent something, so one
that nobody else writes to still has one record.
"""
_REQUEST_BYTES = 4_000_000
"""Of the batches of all partitions in one Produce request."""
_FORCED_CLOSE_S = 1.0
"""How long a Sender thread that was told to give up may take; it has nothing left to wait for."""


def with_grace(deadline: float) -> float:
    """Until when a Sender thread may take to end that has delivered, or has given up, by ``deadline``."""
    return max(deadline, time.monotonic() + _FORCED_CLOSE_S)


class _MakersProducer(KafkaProducer):  # type: ignore[misc]
    """Closes only in the process that made it: a forked one would, at its end, send the records of its parent."""

    def __init__(self, **config: Any) -> None:
        self._made_by = os.getpid()
        super().__init__(**config)

    def close(self, *args: Any, **kwargs: Any) -> None:
        if os.getpid() == self._made_by:
            super().close(*args, **kwargs)

    def __del__(self) -> None:
        """Not as kafka-python: flush for a second on whatever thread collects it, and silence its logger for good."""


class WiredProducer:
    """A ``KafkaProducer`` on the pool's connections; thread-safe as stock."""

    key: Any = None
    """Under what ``Senders`` shares it, or another in its place; theirs."""

    def __init__(self, engine: Engine, options: Mapping[str, Any]) -> None:
        self._engine = engine
        self._facade: ProducerFacade | None = None
        self.dropped = False  # whether the one handle that it had is gone for good; set by a finalizer
        self.counted = False  # whether its handles are, and are to be released one by one; set before it is handed out

        def facade(**config: Any) -> ProducerFacade:
            self._facade = ProducerFacade(
                engine,
                request_timeout_ms=config["request_timeout_ms"],
                max_in_flight=config["max_in_flight_requests_per_connection"],
            )
            return self._facade

        try:
            self.kafka = _MakersProducer(**{"batch_size": BATCH_BYTES, **options, "kafka_client": facade})
        except BaseException:
            if self._facade is not None:
                self._facade.close()
            raise
        # kafka-python would close it first thing when the interpreter ends, within a second, and say nothing of what
        # it did not deliver. That is the pool's to do, which knows what else there is to wait for.
        self.kafka._unregister_cleanup()
        self.kafka._accumulator._incomplete = WatchedBatches(engine.tally)  # nothing was sent yet

        # What transactional calls wait for, without a limit of kafka-python's; and whether nobody will tell them any
        # more. Guarded by the transaction manager's lock, which is held while a request is queued.
        self._awaited: weakref.WeakSet[Any] = weakref.WeakSet()
        self._ended = False
        transactions = self.kafka._transaction_manager
        if transactions is not None:
            self._enqueue: Callable[[Any], None] = transactions._enqueue_request
            transactions._enqueue_request = self._enqueue_watched
            self._classify: Callable[..., Any] = transactions.classify_batch_error
            transactions.classify_batch_error = self._classify_failure
            self._reset_producer_id: Callable[[], None] = transactions.reset_producer_id
            transactions.reset_producer_id = self._begin_with_another_id
        if "max_request_size" not in options:  # which bounds a record, too
            self.kafka._sender.config["max_request_size"] = _REQUEST_BYTES
        self._topics: set[str] = set()  # that the cluster's view knows of; added to by any thread

    def want(self, topic: str) -> None:
        """Keep the metadata of ``topic``, to which records are sent.

        kafka-python asks for it only where it is not there. In a pool it may be there for another client alone, and go
        with it: records that wait for their leader would wait for ever.
        """
        if topic not in self._topics:
            self._facade.cluster.add_topic(topic)  # type: ignore[union-attr]
            self._topics.add(topic)

    def _classify_failure(self, *args: Any, **kwargs: Any) -> Any:
        # Of a batch that is not sent again. kafka-python lets a transaction go on, and be committed without it, where
        # another attempt might have helped but there is no time for one.
        transactions = self.kafka._transaction_manager
        outcome = self._classify(*args, **kwargs)
        state = transactions._current_state
        if (
            outcome == transactions.ERROR_CLASS_RETRIABLE
            and transactions.is_transactional()
            and state.is_transition_valid(state, TransactionState.ABORTABLE_ERROR)
        ):
            return transactions.ERROR_CLASS_ABORTABLE
        return outcome

    def _begin_with_another_id(self) -> None:
        """Give up the producer id, and have the Sender ask for another one.

        That is due when a record that may have been written is given up, since nobody knows then what its broker takes
        for the next number. kafka-python gives the id up, but asks for one only in the state in which a producer
        begins: it would never send again, and with it no handle that shares it.
        """
        transactions = self.kafka._transaction_manager
        with transactions._lock:
            self._reset_producer_id()
            if transactions._current_state == TransactionState.READY:
                transactions._current_state = TransactionState.UNINITIALIZED

    def _enqueue_watched(self, handler: Any) -> None:
        if self._ended:
            handler.fail(_unanswered())
        else:
            self._awaited.add(handler.result)
            self._enqueue(handler)

    @property
    def on_sender_thread(self) -> bool:
        """Whether this is the thread that delivers the records, and calls back for them."""
        return threading.current_thread() is self.kafka._sender

    def to(self, topic: str, key_serializer: Any, value_serializer: Any, unfinished: set[Any]) -> TopicSender:
        """What sends to ``topic``; serializers that are not None are applied before those of the KafkaProducer.

        The futures of what is sent one by one are in ``unfinished`` until they are done.
        """
        return TopicSender(self.kafka, topic, key_serializer, value_serializer, unfinished)

    def flush(self, futures: Collection[Any], timeout_ms: float | None = None) -> None:
        """Send what is buffered now and wait until the records of ``futures`` are acknowledged or have failed.

        kafka-python applies its timeout to each batch anew, and waits for the records of all handles; here it bounds
        the whole. Raises KafkaTimeoutError.
        """
        deadline = None if timeout_ms is None else time.monotonic() + timeout_ms / 1000
        with self._flushing():
            for future in futures:
                try:
                    future.get(None if deadline is None else max(0.0, deadline - time.monotonic()))
                except KafkaError as error:  # its sender hears of it by the future, unless that is what ended the wait
                    if not future.is_done:
                        pending = sum(getattr(each, "pending", 1) for each in futures if not each.is_done)
                        raise KafkaTimeoutError(
                            f"{pending} records were not acknowledged within {timeout_ms:.0f} ms"
                        ) from error

    @property
    def alive(self) -> bool:
        """Whether its Sender thread runs."""
        return bool(self.kafka._sender.is_alive())

    @property
    def closing(self) -> bool:
        """Whether it takes no more records."""
        return bool(self.kafka._accumulator._closed)

    def begin_flush(self) -> None:
        """From now on, send what is buffered without lingering; does not wait."""
        self.kafka._accumulator.begin_flush()
        self.kafka._sender.wakeup()

    def deliver(self, timeout_ms: float) -> Counter[str]:
        """Send what is buffered, and give up what is left after ``timeout_ms``: its futures fail.

        Returns how many records, of all handles, were not delivered, by topic.
        """
        deadline = time.monotonic() + timeout_ms / 1000
        with self._flushing():
            for batch in self.kafka._accumulator._incomplete.all():
                if self.on_sender_thread or not batch.produce_future.wait(max(0.0, deadline - time.monotonic())):
                    return self.give_up()
        return Counter()

    def give_up(self) -> Counter[str]:
        """Let the Sender thread fail what is not delivered, and end; does not wait. Returns how many, by topic."""
        undelivered = self.undelivered()
        self.kafka._sender.force_close()
        return undelivered

    @contextmanager
    def _flushing(self) -> Iterator[None]:
        """Meanwhile, what is buffered is sent without lingering."""
        self.begin_flush()
        try:
            yield
        finally:
            self.kafka._accumulator._flushes_in_progress.decrement()

    @property
    def useless(self) -> bool:
        """Whether kafka-python sends nothing with it any more, though it belongs to no transaction: it was told that it
        may not write idempotently, which may be allowed again.
        """
        transactions = self.kafka._transaction_manager
        if transactions is None or transactions.is_transactional():
            return False
        return bool(transactions.has_fatal_error())

    def check_login(self) -> None:
        """Raise where a broker does not let the pool in any more, and records for it would only wait."""
        if (refused := self._engine.refusals.of(Lane.PRODUCE)) is not None:
            raise refused

    def undelivered(self) -> Counter[str]:
        """How many records, of all handles, are neither acknowledged nor failed, by topic."""
        undelivered: Counter[str] = Counter()
        for batch in self.kafka._accumulator._incomplete.all():
            undelivered[batch.topic_partition.topic] += batch.record_count
        return undelivered

    def close(self, timeout_ms: float) -> Counter[str]:
        """Deliver what is buffered, end the Sender thread and detach; returns as ``deliver``."""
        deadline = time.monotonic() + timeout_ms / 1000
        undelivered = self.deliver(timeout_ms)
        return undelivered + self.end(with_grace(deadline))

    def end(self, deadline: float) -> Counter[str]:
        """End the Sender thread, which has delivered or given up, and detach; returns what came in between.

        Waits for it until ``deadline`` by the monotonic clock. A thread in a callback that does not return stays for as
        long as that does.
        """
        sender: threading.Thread = self.kafka._sender
        undelivered: Counter[str] = Counter()
        sender.initiate_close()  # type: ignore[attr-defined]
        if not self.on_sender_thread:
            sender.join(max(0.0, deadline - time.monotonic()))
        if sender.is_alive():
            sender.force_close()  # type: ignore[attr-defined]
        else:
            # It may have looked for the last time just before a record came that was on its way in another thread.
            undelivered = self.undelivered()
            self.kafka._accumulator.abort_incomplete_batches()
            self.kafka.close(timeout=0)
        self._end_transactional_calls()
        return undelivered

    def _end_transactional_calls(self) -> None:
        transactions = self.kafka._transaction_manager
        if transactions is None:
            return
        with transactions._lock:
            self._ended = True
            awaited = [result for result in self._awaited if not result.is_done]
        for result in awaited:
            result.done(error=_unanswered())


def _unanswered() -> PoolClosedError:
    return PoolClosedError(
        "the producer was closed, or its pool disconnected, while a call of its transaction waited for the broker: "
        "whether that was carried out is not known. init_transactions() of a new producer aborts what is not complete"
    )
