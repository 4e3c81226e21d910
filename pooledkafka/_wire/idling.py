"""Lets a poll with nothing to do wait on one event."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from kafka.structs import TopicPartition

from pooledkafka._fetch import Position
from pooledkafka._wire.flag import Flag
from pooledkafka._wire.places import Places, Wanted

__all__ = ["Idling"]


class Idling:
    """Says when a pass of a consumer's poll would find nothing to do, and waits until that changes.

    kafka-python's pass asks the event loop for the coordinator, for fetches and for a wait, a round trip between
    threads each, and while a heartbeat is due it does not wait at all: fifty idle consumers keep a third of a core
    busy. Here a poll looks once; what it saw holds until it is *stirred*: by an answer to one of its requests, new
    metadata, an interrupt, or a call of its user. Heartbeats go on by themselves, on the event loop, and stir only
    where they bring news.

    For the polling thread, but for ``stir``.

    Args:
        consumer: kafka-python's.
        places: where its partitions are to be fetched.
        fetching: what its fetches in flight wait for, by node. Changed on the I/O thread.
        committed: the offsets that the consumer's generation has committed last.
        release: ends those fetches, from any thread, so that others can be sent.
        check: raises where the poll was asked to end.
    """

    def __init__(
        self,
        consumer: Any,
        places: Places,
        fetching: Mapping[int, Mapping[TopicPartition, Position]],
        committed: Callable[[], Mapping[TopicPartition, int]],
        release: Callable[[], None],
        check: Callable[[], None],
    ) -> None:
        self._subscription = consumer._subscription
        self._fetcher = consumer._fetcher
        self._coordinator = consumer._coordinator
        self._commits = bool(consumer.config["enable_auto_commit"])
        self._in_group = consumer.config["group_id"] is not None
        # A poll shows by each look that its consumer is alive, though nothing comes.
        look_again_ms = min(consumer.config["heartbeat_interval_ms"], consumer.config["max_poll_interval_ms"] / 3)
        self._look_again_s = look_again_ms / 1000
        self._retry_ms = consumer.config["retry_backoff_ms"]
        self._places = places
        self._fetching = fetching
        self._committed = committed
        self._release = release
        self._check = check
        # Set by whoever changes anything, after the change; taken back by the polling thread before it looks. So a
        # change that comes while it looks is never missed: at the worst it looks twice.
        self._stirred = Flag()
        # Both the polling thread's, and 0.0 where it was not so when it looked last.
        self._quiet_until = 0.0  # nothing is to do
        self._settled_until = 0.0  # nothing but to take records

    def stir(self) -> None:
        """Something may be there to do; from any thread and any signal handler."""
        self._stirred.set()

    @property
    def idle(self) -> bool:
        """Whether the last look found nothing to do, and nothing has stirred since."""
        return self._quiet_until > 0.0 and not self._stirred.is_set()

    def doze(self, until: float) -> bool:
        """Wait until then, in seconds of ``time.monotonic``; False as soon as there may be something to do.

        Most polls of an idle consumer are no more than this; ``wait`` is for those in which a look or a commit is due.
        """
        now = time.monotonic()
        if self._stirred.is_set() or not now < until < self._quiet_until:
            return False
        if self._in_group:
            if self._commits and self._coordinator.next_auto_commit_deadline <= until:
                return False
            self._coordinator.heartbeat.last_poll = now
        return not self._stirred.wait(until - now) and time.monotonic() >= until

    def wait(self, timeout_ms: float) -> bool:
        """Wait while there is nothing to do, at most ``timeout_ms``; False at once where there is something."""
        now = time.monotonic()
        looked = self._stirred.is_set() or now >= self._quiet_until
        if looked:
            self._quiet_until = self._settled_until = 0.0
            self._stirred.clear()
            self._check()
            if not self._nothing_to_do():
                return False
            # Not for ever: a preferred replica expires without telling anybody.
            self._quiet_until = now + self._look_again_s
        until = self._quiet_until
        if self._in_group:
            if self._commits:
                if self._coordinator.next_auto_commit_deadline <= now and self._all_is_committed():
                    self._coordinator.next_auto_commit_deadline = now + self._coordinator.auto_commit_interval
                until = min(until, self._coordinator.next_auto_commit_deadline)
                if until <= now:
                    return False
            if looked:
                self._coordinator.poll_heartbeat()  # raises what has ended the heartbeats
            else:
                self._coordinator.heartbeat.last_poll = now  # all else that it does: the consumer is alive
        self._wait_for_stir(min(timeout_ms / 1000, until - now))
        return True

    def is_settled(self) -> bool:
        """Whether all that a pass would do now is to take records, and to fetch more of them; asked after ``wait``.

        Its group goes on, no commit is due and all its partitions have positions. kafka-python's pass asks for the
        coordinator then, a round trip to the event loop for each poll: with several busy consumers, whose threads take
        turns with that one, it costs more than the records.
        """
        now = time.monotonic()
        if not self._group_is_quiet() or self._offsets_have_failed() or self._commit_is_due(now):
            return False
        try:
            self._places.look()
        except KeyError:
            return False  # a partition went meanwhile
        if self._places.unsettled:
            return False
        if self._in_group:
            self._coordinator.poll_heartbeat()
        self._settled_until = now + self._look_again_s
        return True

    def has_records(self) -> bool:
        """Whether there are records to take, and nothing else has come up since ``is_settled`` was true."""
        now = time.monotonic()
        if now >= self._settled_until or self._stirred.is_set():
            return False
        if not (self._fetcher._next_partition_records or self._fetcher._completed_fetches):
            return False
        if self._commit_is_due(now):
            return False
        if self._in_group:
            self._coordinator.heartbeat.last_poll = now
        return True

    def fetch_records(
        self, max_records: int | None = None, update_offsets: bool = True, timeout_ms: float | None = None
    ) -> tuple[Any, bool]:
        """In place of the fetcher's own, whose wait hears only of fetches: what else is done meanwhile would wait too.

        Never says that there is nothing to wait for, upon which kafka-python would sleep.
        """
        fetcher = self._fetcher
        records, partial = fetcher.fetched_records(max_records, update_offsets=update_offsets)
        if not partial:
            try:
                unfetched = self._unfetched(self._places.look())
            except KeyError:
                pass  # a partition went; the next pass looks again
            else:
                if unfetched:
                    self._make_room(unfetched)
                    fetcher.send_fetches()
        if not records:
            # What is to do now may have to wait for a time, as a broker that cannot be reached, without being told; and
            # a pass shows that the consumer is alive.
            wait_s = min(self._retry_ms / 1000, self._look_again_s)
            self._wait_for_stir(wait_s if timeout_ms is None else min(timeout_ms / 1000, wait_s))
            records, _ = fetcher.fetched_records(max_records, update_offsets=update_offsets)
        return records, False

    def _wait_for_stir(self, timeout_s: float) -> None:
        if timeout_s > 0:
            self._stirred.wait(timeout_s)
        else:
            time.sleep(0)  # a loop of polls that do not wait must let the I/O thread run

    def _nothing_to_do(self) -> bool:
        return self._group_is_quiet() and self._fetcher_is_quiet()

    def _all_is_committed(self) -> bool:
        """Whether a commit would say what this generation has said before, as librdkafka does not either.

        The offsets of a group without members expire some days after they were committed last (KIP-211): with
        ``assign()`` they are committed again.
        """
        if not self._subscription.partitions_auto_assigned():
            return False
        committed, consumed = self._committed(), self._subscription.all_consumed_offsets()
        return all(committed.get(partition) == position.offset for partition, position in consumed.items())

    def _commit_is_due(self, now: float) -> bool:
        return self._in_group and self._commits and self._coordinator.next_auto_commit_deadline <= now

    def _offsets_have_failed(self) -> bool:
        """Whether the next pass raises what came of looking for offsets."""
        fetcher = self._fetcher
        return fetcher._cached_list_offsets_exception is not None or fetcher._cached_log_truncation is not None

    def _group_is_quiet(self) -> bool:
        coordinator = self._coordinator
        if not self._in_group:
            return True
        if coordinator.completed_offset_commits or coordinator._async_commit_fenced:
            return False
        if coordinator.coordinator_unknown():
            return False
        return not (self._subscription.partitions_auto_assigned() and coordinator.need_rejoin())

    def _fetcher_is_quiet(self) -> bool:
        fetcher = self._fetcher
        if (
            fetcher._completed_fetches
            or fetcher._next_partition_records
            or fetcher._next_in_line_exception_metadata is not None
            or self._offsets_have_failed()
        ):
            return False
        try:
            wanted = self._places.look()
        except KeyError:
            return False  # a partition went meanwhile
        if self._places.unsettled:
            return False
        states = self._subscription.assignment
        for buffered in (*fetcher._paused_completed_fetches, *fetcher._paused_partition_records):
            if buffered not in states or not states[buffered].paused:
                return False
        if not all(states.keys() >= partitions.keys() for partitions in list(self._fetching.values())):
            self._release()  # else a broker would be asked for what nobody reads
        unfetched = self._unfetched(wanted)
        self._make_room(unfetched)
        return not unfetched

    def _unfetched(self, wanted: Wanted) -> set[Any]:
        """The nodes to which a fetch is to be sent now: some partition is not on its way from there as it should be."""
        nodes = set()
        for node_id, partitions in wanted.items():
            fetching = self._fetching.get(node_id)
            if fetching is None or not (
                fetching == partitions or all(fetching.get(each) == position for each, position in partitions.items())
            ):
                nodes.add(node_id)
        return nodes

    def _make_room(self, unfetched: set[Any]) -> None:
        # kafka-python sends a node one fetch at a time: what is in flight to it keeps back what is to be fetched now.
        if unfetched & self._fetcher._nodes_with_pending_fetch_requests:
            self._release()
