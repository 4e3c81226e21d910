"""Builds kafka-python's own clients over a pool's engine."""

from __future__ import annotations

import os
import random
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.consumer.subscription_state import OffsetResetStrategy
from kafka.errors import CommitFailedError, KafkaError, KafkaTimeoutError, RebalanceInProgressError
from kafka.producer.transaction_manager import TransactionState
from kafka.structs import OffsetAndMetadata, TopicPartition

from pooledkafka._locks import check_free
from pooledkafka._logging import get_logger
from pooledkafka._wire.admin_facade import AdminFacade
from pooledkafka._wire.bad_records import give_up_bad_records
from pooledkafka._wire.committed import OffsetFetches
from pooledkafka._wire.consumer_facade import ConsumerFacade
from pooledkafka._wire.engine import Engine
from pooledkafka._wire.idling import Idling
from pooledkafka._wire.lanes import Lane
from pooledkafka._wire.listeners import Subscriber, off_the_io_thread
from pooledkafka._wire.producer_facade import ProducerFacade
from pooledkafka.errors import PoolClosedError, PoolError

__all__ = ["WiredAdmin", "WiredConsumer", "WiredProducer"]

_log = get_logger("pooledkafka.consumer")

_FORCED_CLOSE_S = 1.0
"""How long a Sender thread that was told to give up may take; it has nothing left to wait for."""


def _spread(coordinator: Any) -> None:
    """Let consumers that were made together drift apart: what all commit at once, everybody else waits behind."""
    coordinator.auto_commit_interval *= random.uniform(0.8, 1.0)
    coordinator.heartbeat.config["heartbeat_interval_ms"] *= random.uniform(0.8, 1.0)


class WiredConsumer:
    """A ``KafkaConsumer`` on the pool's connections; ``kafka`` is for one thread at a time, as stock."""

    _idling: Idling

    def __init__(self, engine: Engine, options: Mapping[str, Any]) -> None:
        self._engine = engine
        self._group: str | None = options.get("group_id")
        self._facade: ConsumerFacade | None = None
        if self._group is not None:
            engine.net.run(engine.attach_member, self._group)

        def facade(**config: Any) -> ConsumerFacade:
            engine.allow_frames_of(config["receive_message_max_bytes"])
            self._facade = ConsumerFacade(engine, config["request_timeout_ms"])
            return self._facade

        try:
            # The pool keeps the fetch sessions with the brokers; a consumer's own would be with nobody.
            self.kafka = KafkaConsumer(
                **{**options, "kafka_client": facade, "enable_incremental_fetch_sessions": False}
            )
        except BaseException:
            self._detach()
            raise
        assert self._facade is not None
        self._idling = self._facade.idling_of(self.kafka)
        self.kafka._coordinator._offset_fetch_futures = OffsetFetches(self.kafka._coordinator)
        self._facade.bind(self.kafka._coordinator)
        _spread(self.kafka._coordinator)
        give_up_bad_records(self.kafka._fetcher)
        self.kafka._fetcher.fetch_records = self._idling.fetch_records
        self._pass: Callable[..., Any] = self.kafka._poll_once
        self.kafka._poll_once = self._checked_pass

    def _checked_pass(self, timer: Any, max_records: int, update_offsets: bool = True) -> Any:
        # Its milliseconds are rounded down: without one more, the last would be spent in passes that do not wait.
        waited = self._idling.wait(0 if timer.expired else timer.timeout_ms + 1)
        # kafka-python gives back the records of a partition that was paused and resumed only where this is None, and
        # leaves an object here that has been read to its end: the partition would wait for ever.
        fetcher = self.kafka._fetcher
        if not fetcher._next_partition_records:
            fetcher._next_partition_records = None
        if waited:
            # What a wait has brought is handed over first, as kafka-python does; the next pass does the rest.
            records, _ = fetcher.fetched_records(max_records, update_offsets=update_offsets)
        else:
            records = self._pass(timer, max_records, update_offsets=update_offsets)
        if not records and (refused := self._engine.refusals.of(Lane.CONTROL)) is not None:
            raise refused
        return records

    def stir(self) -> None:
        """To be called after each call of ``kafka`` that is no poll: there may be something to do now."""
        self._idling.stir()

    @property
    def ended(self) -> bool:
        """Whether the connections under it are gone for good."""
        return bool(self._engine.net._closed)

    @property
    def over(self) -> bool:
        """Whether it was closed, or its connections are gone."""
        return self.ended or bool(self.kafka._closed)

    def polling(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """``calling`` what may wait for records; raises ``Interrupted`` when ``interrupt`` ended the wait."""
        interrupt = self._facade.interrupt  # type: ignore[union-attr]
        interrupt.poller = threading.get_ident()
        try:
            return self.calling(call, *args, **kwargs)
        finally:
            interrupt.poller = None

    def calling(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Run a call of ``kafka``; raises PoolClosedError for whatever it raises because it is ``over``.

        kafka-python has many words for that, according to where a call was: that the event loop has stopped or is
        closed, that the consumer is, that a request was cancelled.
        """
        try:
            return call(*args, **kwargs)
        except (KafkaError, RuntimeError) as error:
            if not self.over or isinstance(error, PoolError):
                raise
            raise PoolClosedError("the consumer was closed, or its pool disconnected, during this call") from error

    def subscribe(self, subscriber: Subscriber | None, from_beginning: bool | None, **what: Any) -> None:
        """Subscribe; a listener runs on threads of its own. ``from_beginning`` None: as ``auto_offset_reset`` says."""
        self.kafka.subscribe(listener=off_the_io_thread(subscriber, self._engine.net), **what)
        self.stir()
        if from_beginning is not None:
            strategy = OffsetResetStrategy.EARLIEST if from_beginning else OffsetResetStrategy.LATEST
            self.kafka._subscription._default_offset_reset_strategy = strategy

    def resumption(self) -> Callable[[WiredConsumer], None] | None:
        """What lets a consumer made after this one go on where it is; None where its group says where that is."""
        subscription = self.kafka._subscription
        if subscription.partitions_auto_assigned() or not subscription.assignment:
            return None
        states = dict(subscription.assignment)
        positions = {partition: state.position.offset for partition, state in states.items() if state.position}
        paused = [partition for partition, state in states.items() if state.paused]

        def resume(other: WiredConsumer) -> None:
            other.kafka.assign(list(states))
            for partition, offset in positions.items():
                other.kafka.seek(partition, offset)
            other.kafka.pause(*paused)

        return resume

    def poll_unhandled(self, timeout_ms: float, max_records: int | None) -> dict[TopicPartition, list[Any]]:
        """Poll without moving on: ``handle`` does that, record by record, and what it leaves is read again."""
        batches: dict[TopicPartition, list[Any]] = self.kafka.poll(
            timeout_ms=timeout_ms, max_records=max_records, update_offsets=False
        )
        return batches

    def handle(
        self, partition: TopicPartition, records: list[Any], handler: Callable[[Any], Any], over: Callable[[], bool]
    ) -> None:
        """Call ``handler`` with the records of one partition, until ``over()`` or until they are not the next any more.

        The handler may seek, pause, or wait in calls in which the partition is lost: what it did then holds.
        """
        subscription = self.kafka._subscription
        state = subscription.assignment.get(partition)
        expected = state.position if state is not None else None
        for record in records:
            if over() or not subscription.is_fetchable(partition) or state.position is not expected:
                return
            check_free("calling a handler")
            handler(record)
            if subscription.assignment.get(partition) is not state or state.position is not expected:
                return
            expected = OffsetAndMetadata(record.offset + 1, "", record.leader_epoch)
            state.position = expected

    def commit_handled(self) -> None:
        """Commit what was handled, in a group that leaves that to its user.

        Where the group has moved on meanwhile, the next owner of the partitions handles the records again.
        """
        try:
            self._commit_handled()
        except KafkaError:
            raise
        except BaseException:  # a signal handler's: the commit may not even have been sent
            with suppress(KafkaError):
                self._commit_handled()
            raise

    def _commit_handled(self) -> None:
        coordinator = self.kafka._coordinator
        if self._group is None or self.over or coordinator.config["enable_auto_commit"]:
            return
        try:
            self.calling(self.kafka.commit)
        except (CommitFailedError, RebalanceInProgressError, PoolClosedError) as error:
            _log.warning("could not commit what was handled", group=self._group, error=repr(error))

    def interrupt(self) -> None:
        """Make the poll that waits now, or the next, raise ``Interrupted``; from any thread."""
        self._facade.end_poll()  # type: ignore[union-attr]

    def close(self, *, autocommit: bool, timeout_ms: float) -> None:
        """Commit where asked, leave the group and detach, within ``timeout_ms``; not while another thread polls."""
        try:
            self._facade.close_soon()  # type: ignore[union-attr]
            self.kafka.close(autocommit=autocommit, timeout_ms=timeout_ms)
        except (KafkaError, RuntimeError):
            if not self.ended:  # else a listener has disconnected the pool meanwhile, and there is nothing left to end
                raise
        finally:
            self._detach()

    def drop(self, then: Callable[[], None]) -> None:
        """Leave the group and detach in the background, then call ``then`` on the I/O thread. For finalizers.

        Commits nothing: whether what was read was also dealt with is not known of a consumer that nobody closed.
        """
        self._engine.soon(lambda: self._engine.net.call_soon(self._leave(then)))

    async def _leave(self, then: Callable[[], None]) -> None:
        try:
            await self._facade.leave(self.kafka.config["request_timeout_ms"])  # type: ignore[union-attr]
        finally:
            if self._group is not None:
                self._engine.detach_member(self._group)
            then()

    def _detach(self) -> None:
        # Options that kafka-python refuses are noticed before it has made its client, or after.
        if self._facade is not None:
            self._facade.close()
        if self._group is not None:
            self._engine.call(self._engine.detach_member, self._group)


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
        self.counted = False  # whether its handles are, and are to be released one by one; set before it is handed out

        def facade(**config: Any) -> ProducerFacade:
            self._facade = ProducerFacade(
                engine,
                request_timeout_ms=config["request_timeout_ms"],
                max_in_flight=config["max_in_flight_requests_per_connection"],
            )
            return self._facade

        try:
            self.kafka = _MakersProducer(**{**options, "kafka_client": facade})
        except BaseException:
            if self._facade is not None:
                self._facade.close()
            raise
        # kafka-python would close it first thing when the interpreter ends, within a second, and say nothing of what
        # it did not deliver. That is the pool's to do, which knows what else there is to wait for.
        self.kafka._unregister_cleanup()

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
                        pending = sum(not each.is_done for each in futures)
                        raise KafkaTimeoutError(
                            f"{pending} records were not acknowledged within {timeout_ms:.0f} ms"
                        ) from error

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
                if not batch.produce_future.wait(timeout=max(0.0, deadline - time.monotonic())):
                    break
            else:
                return Counter()
        undelivered = self.give_up()
        self.kafka._sender.join(_FORCED_CLOSE_S)  # so that a flush within close() finds nothing
        return undelivered

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
    def ended(self) -> bool:
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
        sender: threading.Thread = self.kafka._sender
        undelivered = Counter() if self.on_sender_thread else self.deliver(timeout_ms)
        self.kafka.close(timeout=max(_FORCED_CLOSE_S, deadline - time.monotonic()))
        if not sender.is_alive():
            # It may have looked for the last time just before a record came that was on its way in another thread.
            undelivered += self.undelivered()
            self.kafka._accumulator.abort_incomplete_batches()
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


class WiredAdmin:
    """A ``KafkaAdminClient`` on the pool's connections; its calls may come from any thread."""

    def __init__(self, engine: Engine, options: Mapping[str, Any]) -> None:
        self._engine = engine

        def facade(**config: Any) -> AdminFacade:
            self._facade = AdminFacade(engine, config["request_timeout_ms"])
            return self._facade

        self.kafka = KafkaAdminClient(**{**options, "kafka_client": facade})

    @property
    def ended(self) -> bool:
        """Whether the connections under it are gone for good."""
        return bool(self._engine.net._closed)

    def drop(self, then: Callable[[], None]) -> None:
        """Detach in the background, then call ``then`` on the I/O thread. For finalizers."""

        def leave() -> None:
            self._facade.leave()
            then()

        self._engine.soon(leave)

    def close(self) -> None:
        """Detach."""
        self.kafka.close()
