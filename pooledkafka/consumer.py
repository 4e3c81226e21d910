"""A consumer over a shared pool."""

from __future__ import annotations

import inspect
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext, suppress
from typing import Any

from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata, TopicPartition

from pooledkafka._client import PooledClient
from pooledkafka._forking import abandon, inherit, notice_fork
from pooledkafka._locks import LockName, new_rlock
from pooledkafka._run import Run, RunOptions, stopped_by_signals
from pooledkafka._unclosed import made_here
from pooledkafka._wire import Flag, Interrupted, Listening, Subscriber, WiredConsumer
from pooledkafka.config import CONSUMER_OPTIONS
from pooledkafka.errors import ConcurrentUseError, ConfigurationError, PoolClosedError, PoolTimeoutError
from pooledkafka.pool import ConnectionPool
from pooledkafka.stats import ConsumerProgress

__all__ = ["Consumer"]

_STAYS_S = 0.5
"""How often a run that pauses looks whether its group goes on without it."""
_INTERRUPT_AGAIN_S = 0.05


class _Use:
    """One call of a consumer. ``contextmanager`` would be a good part of what a poll costs that finds nothing."""

    __slots__ = ("_consumer", "_taken")

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._taken: threading.RLock | None = None  # a process that is forked within the call has another

    def __enter__(self) -> WiredConsumer:
        notice_fork()
        consumer, me = self._consumer, threading.get_ident()
        # From a callback within a call of the same thread, or from a listener that it waits for.
        if me in (consumer._user, consumer._listening.thread):
            # A listener that is called while the consumer closes may still commit.
            return consumer._wired if consumer._wired is not None else consumer._opened()
        if consumer._wired is None:
            consumer._connect_pool()
        use = consumer._use
        if not use.acquire(blocking=False):
            if consumer._ending:
                raise PoolClosedError("the consumer is being closed, or its pool disconnected, by another thread")
            raise ConcurrentUseError(
                "the consumer is being used by another thread. A consumer is for one thread at a time: give each "
                "thread its own (they share the pool's connections), or use a lock around all its calls."
            )
        self._taken = use
        consumer._user = me
        try:
            return consumer._opened()
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        if self._taken is not None:
            self._consumer._user = None
            self._taken.release()
            self._taken = None

    def __del__(self) -> None:
        """Where an exception of a signal handler came before ``__exit__``, or into it: with its traceback this goes."""
        with suppress(RuntimeError):  # it was released, and that not noted
            self.__exit__()


class Consumer(PooledClient):
    """A Kafka consumer whose connections are the pool's; its methods are ``KafkaConsumer``'s.

    Args:
        topics: what to subscribe to; optional, as in kafka-python.
        connection_pool: the pool to share. None: a private pool, made from the connection options given here and
            closed with this consumer.
        options: kafka-python's consumer options (``group_id``, ``auto_offset_reset``, ``value_deserializer``, ...),
            with its names, defaults and meaning. Connection and security options belong to the pool.

    For one thread at a time: used by two at once, it raises ConcurrentUseError. ``close``, ``wakeup``, ``connect`` and
    ``disconnect`` may be called from any thread. Nothing connects until the first use.

    Rebalance listeners run on a thread of their own while ``poll`` waits for them, and may use the consumer: commit,
    seek, pause. (kafka-python runs them on its I/O thread, where they may not.) A listener whose methods are coroutines
    runs on the pool's I/O thread, where it must not block. Commit callbacks run in ``poll``.

    Raises:
        ConfigurationError: an option is unknown, cannot work, or contradicts the pool's.

    Example:
        >>> options = {"group_id": "billing", "auto_offset_reset": "earliest"}
        >>> with Consumer("orders", connection_pool=pool, **options) as consumer:
        ...     for record in consumer:
        ...         handle(record.value)
    """

    kind = "consumer"
    _what = "a consumer"
    _known_options = CONSUMER_OPTIONS
    _wired: WiredConsumer | None = None

    def __init__(self, *topics: str, connection_pool: ConnectionPool | None = None, **options: Any) -> None:
        super().__init__(connection_pool, options)
        # Held by the thread that uses the consumer, while its user's handlers run too, so others only try to take it.
        # Guards the fields below it, but for _closed, which any thread sets, once. Reentrant: an exception of a signal
        # handler may come between taking it and noting that, and the thread that hears it must still be able to close.
        self._use = new_rlock(LockName.USE)
        self._user: int | None = None  # the thread that holds _use
        self._listening = Listening()  # the thread of a rebalance listener, which that thread waits for
        self._wired = None
        # What to do with a consumer that was just wired: on the first use, and after the pool was connected anew.
        self._resubscribe: Callable[[WiredConsumer], None] | None = None
        self._ending = False  # set by the thread that ends this consumer, from before it holds _use until after
        self._stop_asked = False  # set by any thread, taken back when a run ends
        self._running = False  # guarded by _use
        self._stirred = Flag()  # ends a pause of a run; set by any thread, taken back by the one that runs
        self._woken = False  # set by any thread, for a first use that has wired nothing yet to interrupt
        self._made_at = made_here()
        if topics:
            self._resubscribe = self._subscription_to(topics=topics)
        inherit(self)

    # -- life cycle ----------------------------------------------------------------------------------------------------

    def close(self, autocommit: bool = True, timeout_ms: float = 30_000) -> None:
        """Commit where auto-commit is on, leave the group and detach; the pool and its other clients go on.

        From any thread; a poll in another one returns. Idempotent.

        Args:
            autocommit: commit what was consumed, if the consumer has auto-commit enabled.
            timeout_ms: milliseconds for all of that.

        Raises:
            PoolTimeoutError: a call in another thread did not end in time; the consumer is closed, but still attached.
        """
        self._pool._check_may_wait("close a consumer")
        self._closed = True
        self._pool._forget(self)
        try:
            if not self._end(autocommit, timeout_ms, timeout_ms):
                raise PoolTimeoutError(
                    f"the consumer could not be ended within {timeout_ms:.0f} ms, because another thread is in a call "
                    "of it that did not return"
                )
        finally:
            self._close_private_pool(timeout_ms)

    def _in_child(self) -> None:
        self._use = new_rlock(LockName.USE)
        self._user = None
        self._listening = Listening()
        abandon(self._wired)
        self._wired = None
        self._ending = self._running = False
        self._forked = True

    def _tell_to_end(self) -> None:
        self._ending = True
        if not self._waits_for_me():  # else what ends it would be cut short as well
            self.wakeup()

    def _waits_for_me(self) -> bool:
        return threading.get_ident() in (self._user, self._listening.thread)

    def _detach(self, timeout_ms: float, wait_ms: float) -> bool:
        return self._end(True, timeout_ms, wait_ms)

    def _progress(self) -> ConsumerProgress | None:
        """For the pool, which asks on any thread; None where it has no connections."""
        wired = self._wired
        return None if wired is None or wired.over else wired.progress()

    def _let_go(self) -> bool:
        wired = self._wired
        if wired is None or wired.ended:
            return False
        wired.drop(self._pool._told_of_dropped(self.kind))
        return True

    def _end(self, autocommit: bool, timeout_ms: float, wait_ms: float) -> bool:
        """End its work within ``timeout_ms``; False where another thread was in a call of it for ``wait_ms``."""
        self._ending = True
        deadline = time.monotonic() + timeout_ms / 1000
        comes_again = False
        try:
            ended = self._end_within(autocommit, deadline, min(deadline, time.monotonic() + wait_ms / 1000))
            comes_again = not ended and time.monotonic() < deadline  # until then no call may begin, nor a run go on
        finally:
            self._ending = comes_again
        return ended

    def _end_within(self, autocommit: bool, deadline: float, give_up_at: float) -> bool:
        within_own_call = self._waits_for_me()
        if not within_own_call:
            # A poll in another thread holds _use. It may have just passed the point where an interrupt takes effect
            # and wait again, so it is interrupted until it lets go.
            while not self._use.acquire(timeout=_INTERRUPT_AGAIN_S):
                if time.monotonic() >= give_up_at:
                    return False
                self.wakeup()
        try:
            if self._wired is not None:
                if not self._closed:
                    self._resubscribe = self._wired.resumption() or self._resubscribe
                if self._running:  # its handler closes the consumer
                    with suppress(KafkaError):
                        self._wired.commit_handled()
                self._wired.close(autocommit=autocommit, timeout_ms=max(0.0, deadline - time.monotonic()) * 1000)
        finally:
            self._wired = None
            if not within_own_call:
                self._use.release()
        return True

    def wakeup(self) -> None:
        """Make a ``poll`` that waits now, or the next one, return without records; from any thread."""
        self._stirred.set()
        self._woken = True  # before a look at what is wired, which the first use looks for after
        wired = self._wired
        if wired is not None:
            wired.interrupt()

    # -- one thread at a time ------------------------------------------------------------------------------------------

    def _using(self) -> _Use:
        return _Use(self)

    def _opened(self) -> WiredConsumer:
        if self._closed or self._forked:
            self._check_open()
        if self._wired is not None and self._wired.ended:
            self._wired = None  # it was in a call that its pool could not wait for when it was disconnected
        if self._wired is None:
            wired = None
            try:
                wired = WiredConsumer(self._pool._attach(self), self._options)
                if self._resubscribe is not None:
                    self._resubscribe(wired)
                self._check_open()  # closed by another thread meanwhile, which found nothing to end
            except BaseException:
                self._pool._forget(self)
                if wired is not None:
                    wired.close(autocommit=False, timeout_ms=0)
                raise
            self._wired = wired
            if self._woken:
                wired.interrupt()
        self._woken = False
        return self._wired

    def _call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        with self._using() as wired:
            try:
                return wired.calling(getattr(wired.kafka, method), *args, **kwargs)
            finally:
                wired.stir()

    # -- subscribing ---------------------------------------------------------------------------------------------------

    def subscribe(
        self,
        topics: Any = (),
        pattern: str | None = None,
        listener: Any = None,
        *,
        from_beginning: bool | None = None,
    ) -> None:
        """Subscribe to topics, or to all that match a pattern; see ``KafkaConsumer.subscribe``.

        Args:
            topics: their names.
            pattern: a regular expression, in place of names.
            listener: hears of rebalances.
            from_beginning: where to start in a partition for which the group has committed no offset: with True at its
                first record, with False after its last. Default: as ``auto_offset_reset`` says. It holds for the whole
                consumer until the next ``subscribe``.
        """
        subscribe = self._subscription_to(
            topics=topics, pattern=pattern, listener=listener, from_beginning=from_beginning
        )
        with self._using() as wired:
            subscribe(wired)
            self._resubscribe = subscribe

    def _subscription_to(
        self, listener: Any = None, from_beginning: bool | None = None, **what: Any
    ) -> Callable[[WiredConsumer], None]:
        subscriber = None if listener is None else Subscriber(listener, self._listening)
        return lambda wired: wired.subscribe(subscriber, from_beginning, **what)

    def unsubscribe(self) -> None:
        """Leave all topics and partitions."""
        self._call("unsubscribe")
        self._resubscribe = None

    def assign(self, partitions: Any) -> None:
        """Read these partitions, without a group's coordination."""
        partitions = list(partitions)
        self._call("assign", partitions)
        self._resubscribe = lambda wired: wired.kafka.assign(partitions)

    def assignment(self) -> set[TopicPartition]:
        """The partitions that this consumer has now."""
        return set(self._call("assignment"))

    def subscription(self) -> set[str] | None:
        """The topics subscribed to, or None."""
        topics = self._call("subscription")
        return None if topics is None else set(topics)

    # -- reading -------------------------------------------------------------------------------------------------------

    def poll(self, timeout_ms: float = 0, max_records: int | None = None) -> dict[TopicPartition, list[Any]]:
        """Records of the assigned partitions, by partition; empty after ``timeout_ms`` milliseconds or a wakeup.

        Raises:
            ConcurrentUseError: another thread uses this consumer now.
            PoolClosedError: the consumer is closed, or its pool disconnected.
        """
        with self._using() as wired:
            try:
                return wired.poll(timeout_ms, max_records)
            except Interrupted:
                if wired.over:
                    raise PoolClosedError(
                        "the consumer was closed, or its pool disconnected, during this call"
                    ) from None
                return {}

    def __iter__(self) -> Consumer:
        return self

    def __next__(self) -> Any:
        """The next record; ends when the consumer is closed, or after ``consumer_timeout_ms`` without one."""
        while not self._closed:
            with self._using() as wired:
                try:
                    return wired.following()
                except Interrupted:
                    continue
        raise StopIteration

    def run(
        self,
        handler: Callable[[Any], Any],
        *,
        max_records: int | None = None,
        batches: bool = False,
        retries: int = 0,
        backoff_ms: float = 100,
        backoff_max_ms: float = 10_000,
        dead_letter_topic: str | None = None,
        error_limit: int | None = None,
        stop_after: int | None = None,
        until_end: bool = False,
        handle_signals: bool = False,
        progress: bool = False,
    ) -> None:
        """Call ``handler`` with each record, until ``stop()``, ``close()`` or ``disconnect()``.

        Each record counts as read when the handler has returned from it, and only then. In a group, that is committed
        after each batch of a poll, or as ``auto_commit_interval_ms`` says where the consumer has auto-commit. So a
        record is handled at least once: again after a crash, or when its partition went to another member meanwhile.

        Args:
            handler: called on this thread with one ConsumerRecord; it may use the consumer. What it raises, or a
                deserializer, ends the run; the record at fault is the next one that the consumer, or whoever has its
                partition then, gets.
            max_records: the most records between two commits. Default: ``max_poll_records``.
            batches: call ``handler`` with a list of records of one partition in place of one record. It counts as one:
                all of its records are tried again together, and go to the dead-letter topic together.
            retries: how often ``handler`` is called again with a record when it has raised, before that is final.
            backoff_ms: milliseconds before the first of these; each pause is twice the one before, and jittered.
                ``stop()`` ends a pause, and so does a rebalance, after which whoever has the partition begins anew.
            backoff_max_ms: the longest pause.
            dead_letter_topic: where records go that cannot be handled, in place of ending the run: as they were
                written, with headers that say where from and why (``dead-letter.topic``, ``.partition``, ``.offset``,
                ``.timestamp``, ``.group``, ``.attempts``, ``.error.type``, ``.error.message``, ``.error.traceback``).
                Each is acknowledged there before it counts as read here; where the run ends before that, it is handled
                again, and may be there twice.
            error_limit: end the run when so many records in a row went there. Default: never.
            stop_after: return when so many records are dealt with.
            until_end: return when all is dealt with that was there when the run had its first partitions.
            handle_signals: SIGTERM and SIGINT call ``stop()``; the second one ends a handler that does not return, by
                SystemExit or KeyboardInterrupt, and the run within about two seconds. Only in the main thread.
            progress: show records, records a second and the lag on standard error, where that is a terminal.

        Raises:
            ConcurrentUseError: another thread uses this consumer now.
            ConfigurationError: an option cannot work.
            ErrorLimitError: see ``error_limit``.
            KafkaError: a record could not be sent to the dead-letter topic; it is handled again in the next run.
            PoolClosedError: the consumer is closed, or its pool disconnected.

        Example:
            >>> consumer.run(handle, retries=3, dead_letter_topic="orders.dead", handle_signals=True)
        """
        options = RunOptions(
            max_records=max_records,
            batches=batches,
            retries=retries,
            backoff_ms=backoff_ms,
            backoff_max_ms=backoff_max_ms,
            dead_letter_topic=dead_letter_topic,
            error_limit=error_limit,
            stop_after=stop_after,
            until_end=until_end,
            handle_signals=handle_signals,
            progress=progress,
        )
        if inspect.iscoroutinefunction(handler):
            raise ConfigurationError(
                f"the handler {handler!r} is a coroutine function, which nobody would run: give a plain function; it "
                "may call asyncio.run()"
            )
        try:
            with stopped_by_signals(self.stop) if handle_signals else nullcontext(), self._using() as wired:
                was_running, self._running = self._running, True  # a handler may run its own consumer
                try:
                    run = Run(wired, self._pool, handler, options, lambda: self._run_is_over, self._pause_run)
                    run.go(self._check_process)  # a handler that forks may return in both processes
                finally:
                    self._running = was_running
        finally:
            if not self._running:  # else it is the run's of another thread, or that of an outer one
                self._stop_asked = False

    def _pause_run(self, pause_s: float) -> bool:
        """Wait so long between two attempts; whether the run goes on."""
        until = time.monotonic() + pause_s
        while True:
            self._stirred.clear()  # before a look at what stirs it
            wired = self._wired
            if self._run_is_over or wired is None or wired.over or not wired.stays():
                return False
            left_s = until - time.monotonic()
            if left_s <= 0:
                return True
            self._stirred.wait(min(left_s, _STAYS_S))

    @property
    def _run_is_over(self) -> bool:
        return self._stop_asked or self._closed or self._ending or self._forked

    def stop(self) -> None:
        """End ``run()`` when the handler returns from the record it has, or the next ``run()`` at once.

        From any thread, a signal handler or the record's handler itself. The consumer stays as it is: close it after.
        """
        self._stop_asked = True
        self.wakeup()

    def seek(self, partition: TopicPartition, offset: int) -> None:
        """Read ``partition`` from ``offset`` on."""
        self._call("seek", partition, offset)

    def seek_to_beginning(self, *partitions: TopicPartition) -> None:
        """Read from the first offset there is."""
        self._call("seek_to_beginning", *partitions)

    def seek_to_end(self, *partitions: TopicPartition) -> None:
        """Read only what comes from now on."""
        self._call("seek_to_end", *partitions)

    def position(self, partition: TopicPartition, timeout_ms: float | None = None) -> int | None:
        """The offset of the next record that will be returned."""
        offset: int | None = self._call("position", partition, timeout_ms=timeout_ms)
        return offset

    def pause(self, *partitions: TopicPartition) -> None:
        """Return no records of these partitions until ``resume``."""
        self._call("pause", *partitions)

    def resume(self, *partitions: TopicPartition) -> None:
        """Undo ``pause``."""
        self._call("resume", *partitions)

    def paused(self) -> set[TopicPartition]:
        """The partitions that are paused."""
        return set(self._call("paused"))

    # -- offsets -------------------------------------------------------------------------------------------------------

    def commit(
        self, offsets: dict[TopicPartition, OffsetAndMetadata] | None = None, timeout_ms: float | None = None
    ) -> None:
        """Commit ``offsets``, or all that was returned, and wait for it."""
        self._call("commit", offsets, timeout_ms=timeout_ms)

    def commit_async(
        self,
        offsets: dict[TopicPartition, OffsetAndMetadata] | None = None,
        callback: Callable[[Any, Any], None] | None = None,
    ) -> Any:
        """Commit without waiting; ``callback(offsets, response_or_error)`` runs in a later ``poll``."""
        return self._call("commit_async", offsets, callback)

    def committed(self, partition: TopicPartition, metadata: bool = False, timeout_ms: float | None = None) -> Any:
        """The group's last committed offset, or None."""
        return self._call("committed", partition, metadata=metadata, timeout_ms=timeout_ms)

    def highwater(self, partition: TopicPartition) -> int | None:
        """The high watermark of the last fetch, or None."""
        offset: int | None = self._call("highwater", partition)
        return offset

    def offsets_for_times(self, timestamps: dict[TopicPartition, int]) -> Any:
        """The first offset at or after each timestamp, in milliseconds since 1970."""
        return self._call("offsets_for_times", timestamps)

    def beginning_offsets(self, partitions: Any) -> dict[TopicPartition, int]:
        """The first offset of each partition."""
        return dict(self._call("beginning_offsets", partitions))

    def end_offsets(self, partitions: Any) -> dict[TopicPartition, int]:
        """The offset after the last record of each partition."""
        return dict(self._call("end_offsets", partitions))

    def group_metadata(self) -> Any:
        """The group's generation and member id, for ``send_offsets_to_transaction``."""
        return self._call("group_metadata")

    # -- the cluster ---------------------------------------------------------------------------------------------------

    def topics(self) -> set[str]:
        """All topics that this client may see."""
        return set(self._call("topics"))

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        """The partitions of ``topic``, or None where it does not exist."""
        partitions = self._call("partitions_for_topic", topic)
        return None if partitions is None else set(partitions)

    def metrics(self, raw: bool = False) -> Any:
        """kafka-python's metrics of this consumer."""
        return self._call("metrics", raw)

    def __repr__(self) -> str:
        state = "closed" if self._closed else "attached" if self._wired is not None else "not attached"
        return f"<Consumer group_id={self._options.get('group_id')!r} [{state}] of {self._pool!r}>"
