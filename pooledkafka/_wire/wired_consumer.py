"""kafka-python's consumer over a pool's engine."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

from kafka import KafkaConsumer
from kafka.consumer.subscription_state import OffsetResetStrategy
from kafka.errors import CommitFailedError, KafkaError, RebalanceInProgressError
from kafka.structs import OffsetAndMetadata, TopicPartition

from pooledkafka._locks import check_free
from pooledkafka._logging import get_logger
from pooledkafka._wire.committed import OffsetFetches
from pooledkafka._wire.consumer_facade import ConsumerFacade
from pooledkafka._wire.deserializing import Deserializing
from pooledkafka._wire.engine import Engine
from pooledkafka._wire.heartbeats import BeatInTurn
from pooledkafka._wire.idling import Idling
from pooledkafka._wire.lanes import Lane
from pooledkafka._wire.late_metrics import LateMetrics
from pooledkafka._wire.listeners import Subscriber, off_the_io_thread
from pooledkafka._wire.partition_records import PartitionRecords
from pooledkafka._wire.turns import Turn
from pooledkafka.errors import PoolClosedError, PoolError
from pooledkafka.stats import ConsumerProgress

__all__ = ["WiredConsumer"]

_log = get_logger("pooledkafka.consumer")

_LAST_COMMIT_MS = 1_000
"""For a commit after which the program is to end at once."""


def _spread(coordinator: Any) -> None:
    """Let consumers that were made together drift apart: what all commit at once, everybody else waits behind."""
    coordinator.auto_commit_interval *= random.uniform(0.8, 1.0)
    coordinator.heartbeat = BeatInTurn(**coordinator.config)


def _wait_past_heartbeats(coordinator: Any) -> None:
    """Let no pass of a poll end for a heartbeat, which the event loop sends: while one is late, no pass would wait."""
    coordinator.time_to_next_heartbeat = lambda: math.inf


def _ask_only_what_is_unknown(coordinator: Any) -> None:
    """Let no pass of a poll go to the event loop only to hear what can be seen from here.

    That the coordinator is the one that is known, or will be looked for by the join that comes next, and that no
    partition lacks a position.
    """
    find, refresh = coordinator.ensure_coordinator_ready, coordinator.refresh_committed_offsets_if_needed
    subscription = coordinator._subscription
    lacking = subscription.missing_fetch_positions

    def join_will_look() -> bool:
        joins = coordinator._use_group_apis and subscription.partitions_auto_assigned()
        # Before it joins by a pattern, kafka-python asks for the metadata of all topics: not where it cannot join yet.
        return bool(joins and not subscription.subscribed_pattern and coordinator.need_rejoin())

    coordinator.ensure_coordinator_ready = lambda timeout_ms=None: (
        not coordinator.coordinator_unknown() or join_will_look() or find(timeout_ms=timeout_ms)
    )
    coordinator.refresh_committed_offsets_if_needed = lambda timeout_ms=None: (
        not lacking() or refresh(timeout_ms=timeout_ms)
    )


class WiredConsumer:
    """A ``KafkaConsumer`` on the pool's connections; ``kafka`` is for one thread at a time, as stock."""

    _idling: Idling
    _turn: Turn
    _deserializing: Deserializing

    def __init__(self, engine: Engine, options: Mapping[str, Any]) -> None:
        self._engine = engine
        self.group: str | None = options.get("group_id")
        self._facade: ConsumerFacade | None = None
        self._read: Any = None  # how many records, by topic; the polling thread's
        if self.group is not None:
            engine.net.run(engine.attach_member, self.group)

        def facade(**config: Any) -> ConsumerFacade:
            engine.allow_frames_of(config["receive_message_max_bytes"])
            self._facade = ConsumerFacade(engine, config["request_timeout_ms"])
            return self._facade

        # The pool keeps the fetch sessions with the brokers; a consumer's own would be with nobody.
        own = {"kafka_client": facade, "enable_incremental_fetch_sessions": False}
        metrics_late = options.get("metrics_enabled", True) and not options.get("metric_reporters")
        if metrics_late:
            own["metrics_enabled"] = False
        try:
            self.kafka = KafkaConsumer(**{**options, **own})
        except BaseException:
            self._detach()
            raise
        assert self._facade is not None
        self._idling = self._facade.idling_of(self.kafka)
        self.kafka._coordinator._offset_fetch_futures = OffsetFetches(self.kafka._coordinator)
        self._facade.bind(self.kafka._coordinator)
        _spread(self.kafka._coordinator)
        _wait_past_heartbeats(self.kafka._coordinator)
        _ask_only_what_is_unknown(self.kafka._coordinator)
        if metrics_late:
            LateMetrics(self.kafka)
        config = self.kafka._fetcher.config
        self._deserializing = Deserializing(config["key_deserializer"], config["value_deserializer"])
        self.kafka._fetcher.PartitionRecords = partial(PartitionRecords, engine.decoded, self._deserializing)
        self.kafka._fetcher.fetch_records = self._idling.fetch_records
        self._read = engine.tally.begin_reading(self.group)
        self._turn = engine.net.turn()
        self._take: Callable[..., Any] = self.kafka._fetcher.fetched_records
        self.kafka._fetcher.fetched_records = self._taken
        self._pass: Callable[..., Any] = self.kafka._poll_once
        self.kafka._poll_once = self._checked_pass

    def _taken(self, max_records: int | None = None, update_offsets: bool = True) -> Any:
        """What the fetcher hands over; counted here where it is taken with that, and not one by one later."""
        fetcher = self.kafka._fetcher
        if fetcher._next_partition_records or fetcher._completed_fetches:
            self._turn.give_way()
        found = self._take(max_records, update_offsets=update_offsets)
        if update_offsets:
            for partition, records in found[0].items():
                self._read[partition.topic] += len(records)
        return found

    def _checked_pass(self, timer: Any, max_records: int, update_offsets: bool = True) -> Any:
        # Its milliseconds are rounded down: without one more, the last would be spent in passes that do not wait.
        waited = self._idling.wait(0 if timer.expired else timer.timeout_ms + 1)
        # kafka-python gives back the records of a partition that was paused and resumed only where this is None, and
        # leaves an object here that has been read to its end: the partition would wait for ever.
        fetcher = self.kafka._fetcher
        if not fetcher._next_partition_records:
            fetcher._next_partition_records = None
        if waited:
            return self._brought(max_records, update_offsets)
        if self._idling.is_settled():
            records, _ = self._idling.fetch_records(max_records, update_offsets, timer.timeout_ms)
        else:
            records = self._pass(timer, max_records, update_offsets=update_offsets)
        if not records:
            self._check_refusals()
        return records

    def _brought(self, max_records: int, update_offsets: bool = True) -> Any:
        """What a wait has brought is handed over first, as kafka-python does; the next pass does the rest."""
        fetcher = self.kafka._fetcher
        if fetcher._completed_fetches or fetcher._next_partition_records:
            records, _ = fetcher.fetched_records(max_records, update_offsets=update_offsets)
            if records:
                return records
        self._check_refusals()
        return {}

    def _check_refusals(self) -> None:
        if (refused := self._engine.refusals.of(Lane.CONTROL)) is not None:
            raise refused

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

    def poll(self, timeout_ms: float, max_records: int | None) -> dict[TopicPartition, list[Any]]:
        """``kafka.poll``, as ``polling`` does it."""
        records: dict[TopicPartition, list[Any]] = self.polling(self._poll, timeout_ms, max_records)
        return records

    def _poll(self, timeout_ms: float, max_records: int | None) -> Any:
        # Most polls of a busy consumer do no more than take what is there, and most of an idle one no more than wait:
        # they need no pass, nor what leads to one.
        until = time.monotonic() + timeout_ms / 1000
        if timeout_ms >= 0 and (max_records is None or (type(max_records) is int and max_records > 0)):
            most = self.kafka.config["max_poll_records"] if max_records is None else max_records
            if self._idling.idle and self._engine.refusals.of(Lane.CONTROL) is None:
                if self._idling.doze(until):
                    return {}
                if records := self._brought(most):
                    return records
            if self._idling.has_records() and (records := self._idling.fetch_records(most, timeout_ms=0)[0]):
                return records
        while max_records is None and self._idling.idle and (left_s := until - time.monotonic()) > 0:
            if not self._idling.wait(left_s * 1000):
                break
            if records := self._brought(self.kafka.config["max_poll_records"]):
                return records
            if time.monotonic() >= until:
                return {}
        if timeout_ms > 0:
            timeout_ms = max(0.0, until - time.monotonic()) * 1000
        return self.kafka.poll(timeout_ms=timeout_ms, max_records=max_records)

    def following(self) -> Any:
        """The next record of an iteration, as ``polling`` does it."""
        record = self.polling(next, self.kafka)
        self._read[record.topic] += 1
        return record

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

    # -- being run -----------------------------------------------------------------------------------------------------

    def deserialize(self, record: Any) -> Any:
        """What its user wants of a record that ``poll_unhandled`` returned; raises what the deserializers raise."""
        return self._deserializing.record(record)

    def poll_unhandled(self, timeout_ms: float, max_records: int | None) -> dict[TopicPartition, list[Any]]:
        """Poll records as they were written, without moving on.

        ``handle`` does that, record by record, and what it leaves is read again.
        """
        with self._deserializing.put_off():
            batches: dict[TopicPartition, list[Any]] = self.kafka.poll(
                timeout_ms=timeout_ms, max_records=max_records, update_offsets=False
            )
        return batches

    def handle(
        self,
        partition: TopicPartition,
        records: list[Any],
        handler: Callable[[list[Any], Callable[[], bool]], bool],
        over: Callable[[], bool],
        *,
        together: bool,
    ) -> None:
        """Call ``handler`` with the records of one partition, one by one or ``together``.

        Until ``over()``, until it returns False, or until they are not the next any more: the handler may seek, pause,
        or wait in calls in which the partition is lost, and what it did then holds. It gets what asks for that.
        """
        subscription = self.kafka._subscription
        state = subscription.assignment.get(partition)
        expected = state.position if state is not None else None

        def gone() -> bool:
            # Where the partition is lost and comes back meanwhile, it has another state.
            at_hand = subscription.is_fetchable(partition) and subscription.assignment.get(partition) is state
            return over() or not at_hand or state.position is not expected

        for portion in [records] if together else ([record] for record in records):
            if gone():
                return
            check_free("calling a handler")
            if not handler(portion, gone):
                return
            self._read[partition.topic] += len(portion)
            if self.over:  # the handler has closed it, or its pool was disconnected, which has taken what was counted
                self._engine.tally.end_reading(self.group, self._read)
            if subscription.assignment.get(partition) is not state or state.position is not expected:
                return
            last = portion[-1]
            expected = OffsetAndMetadata(last.offset + 1, "", last.leader_epoch)
            state.position = expected

    def stays(self) -> bool:
        """Say that the consumer is alive, though it does not poll; whether its group lets it go on so."""
        coordinator = self.kafka._coordinator
        if self.group is None or not self.kafka._subscription.partitions_auto_assigned():
            return True
        coordinator.poll_heartbeat()
        return not coordinator.need_rejoin()

    def ends(self) -> dict[TopicPartition, int] | None:
        """The offsets after the last records of its partitions; None as long as it has not joined its group."""
        subscription = self.kafka._subscription
        if subscription.partitions_auto_assigned() and self.kafka._coordinator.need_rejoin():
            return None
        partitions = list(subscription.assignment)
        return dict(self.calling(self.kafka.end_offsets, partitions)) if partitions else {}

    def are_before(self, offsets: Mapping[TopicPartition, int]) -> bool:
        """Whether it has still to come to one of these, in the partitions that it has."""
        states = self.kafka._subscription.assignment
        positions = {each: states[each].position for each in offsets if each in states}
        return any(position is None or position.offset < offsets[each] for each, position in positions.items())

    def lag(self) -> int | None:
        """How many records of its partitions it has not handled yet; None while that is not known of any."""
        states = list(self.kafka._subscription.assignment.values())
        lags = [s.highwater - s.position.offset for s in states if s.position is not None and s.highwater is not None]
        return sum(max(0, lag) for lag in lags) if lags else None

    def progress(self) -> ConsumerProgress:
        """How far it is; from any thread."""
        ends = self._engine.fetching.ends
        partitions: dict[str, dict[int, tuple[int, int]]] = {}
        for partition, state in list(self.kafka._subscription.assignment.items()):
            # Its own was that of the last answer that it took; the pool's is of the last one that came for anybody.
            position, end = state.position, max(state.highwater or 0, ends.get(partition, 0))
            if position is not None and (end or state.highwater is not None):
                partitions.setdefault(partition.topic, {})[partition.partition] = position.offset, end
        polled = self.kafka._coordinator.heartbeat.last_poll if self.group is not None else -math.inf
        age_ms = (time.monotonic() - polled) * 1000 if polled > 0 else None
        return ConsumerProgress(self.group, age_ms, partitions)

    def commit_handled(self, *, hurried: bool = False) -> None:
        """Commit what was handled, in a group that leaves that to its user; ``hurried`` where the program is to end.

        Where the group has moved on meanwhile, the next owner of the partitions handles the records again.
        """
        try:
            self._commit_handled(_LAST_COMMIT_MS if hurried else None)
        except KafkaError:
            raise
        except BaseException:  # a signal handler's: the commit may not even have been sent
            with suppress(KafkaError):
                self._commit_handled(_LAST_COMMIT_MS)
            raise

    def _commit_handled(self, timeout_ms: float | None) -> None:
        coordinator = self.kafka._coordinator
        if self.group is None or self.over or coordinator.config["enable_auto_commit"]:
            return
        try:
            self.calling(self.kafka.commit, timeout_ms=timeout_ms)
        except (CommitFailedError, RebalanceInProgressError, PoolClosedError) as error:
            _log.warning("commit.failed", pool=self._engine.name, group=self.group, error=repr(error))

    def interrupt(self) -> None:
        """Make the poll that waits now, or the next, raise ``Interrupted``; from any thread."""
        self._facade.end_poll()  # type: ignore[union-attr]

    def close(self, *, autocommit: bool, timeout_ms: float) -> None:
        """Commit where asked, leave the group and detach, within ``timeout_ms``; not while another thread polls."""
        deadline = time.monotonic() + timeout_ms / 1000
        try:
            self._facade.begin_close(timeout_ms)  # type: ignore[union-attr]
            self.kafka.close(autocommit=autocommit, timeout_ms=max(0.0, deadline - time.monotonic()) * 1000)
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
            self._engine.tally.end_reading(self.group, self._read)
            if self.group is not None:
                self._engine.detach_member(self.group)
            then()

    def _detach(self) -> None:
        # Options that kafka-python refuses are noticed before it has made its client, or after.
        if self._facade is not None:
            self._facade.close()
        if self._read is not None:
            self._engine.tally.end_reading(self.group, self._read)
        if self.group is not None:
            self._engine.call(self._engine.detach_member, self.group)
