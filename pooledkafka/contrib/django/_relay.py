"""Sends what is in the outbox."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from django.db import connections, transaction
from kafka.errors import KafkaConnectionError, KafkaError, KafkaTimeoutError

from pooledkafka._logging import get_logger
from pooledkafka.contrib.django._capture import capture_of
from pooledkafka.contrib.django._pools import Pools
from pooledkafka.contrib.django.models import OutboxRecord
from pooledkafka.errors import ConfigurationError, PoolError
from pooledkafka.producer import Producer

__all__ = ["OutboxRelay", "Round", "Topic"]

_log = get_logger("pooledkafka.contrib.django")

_LONGEST_BLOCK_MS = 10_000
"""How long a topic that is not there may keep the others waiting."""

Topic = tuple[str, str]
"""An alias and a topic."""

_Lane = tuple[str, str, bytes | None, int | None]


@dataclass
class Round:
    """What one round has come to."""

    sent: int = 0
    """Records that are acknowledged and deleted."""
    failed: dict[int, str] = field(default_factory=dict)
    """Ids of records that could not be sent, with the reason; they are still there."""
    waiting: set[int] = field(default_factory=set)
    """Ids of records that wait for one before them with the same key, which failed or which another relay has."""
    absent: set[Topic] = field(default_factory=set)
    """Topics of which nothing is known, or whose alias cannot work; one record of each is among ``failed``."""
    unreachable: bool = False
    """Whether the cluster could not be reached, or did not answer in time: others would fare no better now."""


class OutboxRelay:
    """Sends the outbox of one database. For one thread.

    Several relays, in processes of their own, share the work where the database can skip rows that others have locked.
    A record is only sent when there is none before it with the same key that another relay has, so the order of a key
    is kept. Where the database has no row locks, as SQLite, run one relay.

    Args:
        pools: where to.
        database: alias of the database.
        aliases: those of ``settings.POOLEDKAFKA`` whose records it sends; None: all.
        batch_size: most records of a round.
    """

    def __init__(self, pools: Pools, database: str, aliases: Collection[str] | None, batch_size: int) -> None:
        self._pools = pools
        self._database = database
        self._aliases = aliases
        self._batch_size = batch_size
        self._producers: dict[str, Producer] = {}

    def round(self, skip: Collection[int] = (), absent: Collection[Topic] = ()) -> Round:
        """Send one batch, wait until it is acknowledged, and delete what is.

        Args:
            skip: ids of records that have failed and are not to be tried now, nor any after them with their keys.
            absent: topics whose records are not to be tried now, however many there are.

        Raises:
            DatabaseError: the database failed; what was sent will be sent again.
        """
        done = Round()
        with self._transaction() as locking:
            records = list(self._next(locking, skip, absent))
            held = self._held_back(records, absent)
            futures: list[tuple[OutboxRecord, Any]] = []
            for record in records:
                if (record.alias, record.topic) in done.absent:
                    continue
                if _lane(record) in held and _is_ordered(record):
                    done.waiting.add(record.pk)
                    continue
                try:
                    futures.append((record, self._send(record)))
                except (KafkaError, AssertionError, TypeError, ValueError) as error:
                    done.failed[record.pk] = repr(error)
                    held.add(_lane(record))
                    if _is_outage(error):
                        done.unreachable = True
                        break
                    # Nothing is known of its topic, which is to be waited for once; or its alias cannot work.
                    if isinstance(error, (KafkaTimeoutError, ConfigurationError)):
                        done.absent.add((record.alias, record.topic))
            acknowledged = []
            late = False
            for record, future in futures:
                try:
                    if future is not None:
                        future.get()  # ends by the producer's delivery_timeout_ms
                    acknowledged.append(record.pk)
                except KafkaError as error:
                    done.failed[record.pk] = repr(error)
                    late = late or bool(getattr(error, "retriable", False)) or isinstance(error, KafkaTimeoutError)
            done.unreachable = done.unreachable or (late and not acknowledged)
            self._rows().filter(pk__in=acknowledged).delete()
            done.sent = len(acknowledged)
        for pk, reason in done.failed.items():
            _log.error("outbox.not_sent", id=pk, error=reason)
        return done

    @contextmanager
    def _transaction(self) -> Iterator[bool]:
        """A transaction where rows can be locked; elsewhere it would lock the whole database while Kafka answers."""
        locking = connections[self._database].features.has_select_for_update
        with transaction.atomic(using=self._database) if locking else nullcontext():
            yield locking

    def _rows(self) -> Any:
        rows = OutboxRecord._default_manager.using(self._database)
        return rows.all() if self._aliases is None else rows.filter(alias__in=self._aliases)

    def _rows_without(self, absent: Collection[Topic]) -> Any:
        rows = self._rows()
        for alias, topic in absent:  # by column: they may have any number of rows
            rows = rows.exclude(alias=alias, topic=topic)
        return rows

    def _next(self, locking: bool, skip: Collection[int], absent: Collection[Topic]) -> Any:
        rows = self._rows_without(absent).exclude(pk__in=list(skip)).order_by("pk")
        if locking:
            rows = rows.select_for_update(
                skip_locked=connections[self._database].features.has_select_for_update_skip_locked
            )
        return rows[: self._batch_size]

    def _held_back(self, records: list[OutboxRecord], absent: Collection[Topic]) -> set[_Lane]:
        """Lanes with a record before these that is not among them: another relay has it, or it has failed.

        Another relay deletes its records in the transaction that locks them, when they are acknowledged. So as long as
        they are to be seen here, what comes after them waits.
        """
        if not records:
            return set()
        mine = {record.pk for record in records}
        before = self._rows_without(absent).filter(pk__lt=records[-1].pk).exclude(pk__in=mine)
        return {
            (alias, topic, None if key is None else bytes(key), partition)
            for alias, topic, key, partition in before.values_list("alias", "topic", "key", "partition")
        }

    def _send(self, record: OutboxRecord) -> Any:
        alias = self._pools.alias(record.alias)
        if capture_of(alias.settings.backend) is not None:
            return None  # it was captured when it was added
        producer = self._producers.get(record.alias)
        if producer is None:
            options: dict[str, Any] = {
                name: value for name, value in alias.settings.producer.items() if not name.endswith("_serializer")
            }
            # Whatever the application's own sends may do, an event here is written once by a relay, and in its order.
            options.update(enable_idempotence=True, acks="all")
            options.pop("retries", None)
            options.pop("transactional_id", None)
            options["max_block_ms"] = min(options.get("max_block_ms", _LONGEST_BLOCK_MS), _LONGEST_BLOCK_MS)
            producer = self._producers[record.alias] = Producer(connection_pool=alias.pool, **options)
        return producer.send(record.topic, **record.as_sent())

    def drain(self, stopped: Callable[[], bool], skip: Collection[int] = (), absent: Collection[Topic] = ()) -> Round:
        """Rounds until nothing is left but ``skip``, ``absent``, what failed or waits for others, or ``stopped()``."""
        total = Round()
        while not stopped():
            done = self.round([*skip, *total.failed, *total.waiting], {*absent, *total.absent})
            total.sent += done.sent
            total.failed.update(done.failed)
            total.waiting |= done.waiting
            total.absent |= done.absent
            total.unreachable = done.unreachable
            if done.unreachable or not (done.sent or done.failed or done.waiting):
                break
        return total


def _lane(record: OutboxRecord) -> _Lane:
    return record.alias, record.topic, None if record.key is None else bytes(record.key), record.partition


def _is_outage(error: Exception) -> bool:
    return isinstance(error, (PoolError, KafkaConnectionError)) and not isinstance(error, ConfigurationError)


def _is_ordered(record: OutboxRecord) -> bool:
    return record.key is not None or record.partition is not None
