"""What a pool counts where it happens."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter, defaultdict
from typing import Any

from kafka.producer.producer_batch import FinalState
from kafka.producer.record_accumulator import IncompleteProducerBatches

from pooledkafka._locks import LockName, new_lock
from pooledkafka._wire.lanes import LaneKey
from pooledkafka.stats import DURATION_BOUNDS_MS

__all__ = ["MeasuredDurations", "Tally", "Wait", "WatchedBatches"]

_BOUNDS_S = tuple(bound / 1000 for bound in DURATION_BOUNDS_MS)


class Wait:
    """What waits for one reason, and has waited; the I/O thread's, read by any."""

    def __init__(self) -> None:
        self.now = 0
        self.count = 0  # of waits that are over, however they ended
        self.seconds = 0.0

    def anew(self) -> Wait:
        """The same, with nobody waiting."""
        wait = Wait()
        wait.count, wait.seconds = self.count, self.seconds
        return wait

    def begin(self) -> float:
        """Something waits from now on; give what is returned to ``end``."""
        self.now += 1
        return time.monotonic()

    def end(self, began: float) -> None:
        """It waits no longer."""
        self.now -= 1
        self.count += 1
        self.seconds += time.monotonic() - began


class MeasuredDurations:
    """How long requests of one kind took; the I/O thread's, read by any."""

    def __init__(self) -> None:
        self.counts = [0] * (len(_BOUNDS_S) + 1)
        self.seconds = 0.0

    def add(self, seconds: float) -> None:
        """One was answered."""
        self.counts[bisect_left(_BOUNDS_S, seconds)] += 1
        self.seconds += seconds


class _Bytes:
    """What kafka-python tells of how many bytes it has read or written, at the place of a sensor of its own."""

    def __init__(self, counts: Counter[tuple[int, str]], where: tuple[int, str]) -> None:
        self._counts = counts
        self._where = where

    def record(self, number: int) -> None:
        self._counts[self._where] += number


class _Unheard:
    """At the place of a sensor that nobody reads."""

    def record(self, value: float) -> None:
        pass


class _Sensors:
    """Those of one connection, by kafka-python's names."""

    request_time = throttle_time = _Unheard()

    def __init__(self, sent: _Bytes, received: _Bytes) -> None:
        self.bytes_sent = sent
        self.bytes_received = received


class Tally:
    """Counts for one pool in one process; it outlives the engines that it is given to, one after the other.

    All is counted on the I/O thread, one at a time, but for the records. Those that are produced are counted by the
    threads that send, under _lock; those that are consumed by the thread that polls, for each consumer apart: a lock
    would cost a poll that takes one record several percent. Any thread may copy one of the dictionaries: that is a
    single step.
    """

    def __init__(self) -> None:
        self.created: Counter[tuple[int, str]] = Counter()  # connections that became ready, by broker and lane
        self.closed: Counter[tuple[int, str, str]] = Counter()  # of those, which have ended, and why
        self.failed: Counter[tuple[int, str]] = Counter()  # connections that could not be opened
        self.bytes_sent: Counter[tuple[int, str]] = Counter()
        self.bytes_received: Counter[tuple[int, str]] = Counter()
        self.throttled: Counter[int] = Counter()  # by broker: how often it asked for a pause
        self.throttled_ms: Counter[int] = Counter()
        self.waits_for_limit = Wait()
        self.waits_for_turn = Wait()
        self.waits_for_lease = Wait()
        self.timed = False  # whether requests are timed; set by any thread
        self.durations: dict[str, MeasuredDurations] = {}  # by the name of the request; once made, they stay
        self.errors: Counter[tuple[str, str]] = Counter()  # requests that were sent and got no answer, and why
        self.wire_fetches = 0
        self.logical_fetches = 0  # what consumers asked for, and these answered
        self.resent = 0  # requests whose connection ended because of another one
        self._lock = new_lock(LockName.TALLY)
        # Guarded by _lock: what consumers that are there have read by topic, with their groups, by identity; by group
        # and topic what others had read; and by topic what was acknowledged and what has failed.
        self._reading: dict[int, tuple[str | None, dict[str, int]]] = {}
        self._consumed: Counter[tuple[str | None, str]] = Counter()
        self._produced: Counter[str] = Counter()
        self._undelivered: Counter[str] = Counter()

    # -- on the I/O thread ---------------------------------------------------------------------------------------------

    def opened(self, key: LaneKey, connection: Any) -> None:
        """Count the bytes of a new connection."""
        where = (key.node_id, key.lane.value)
        connection._sensors = _Sensors(_Bytes(self.bytes_sent, where), _Bytes(self.bytes_received, where))

    def throttle(self, node_id: int, milliseconds: int) -> None:
        """A broker asks for a pause."""
        self.throttled[node_id] += 1
        self.throttled_ms[node_id] += milliseconds

    def measure(self, sent: Any, request: Any) -> None:
        """Measure how long a request takes that was just sent. Nothing that expects no answer is."""
        if sent.is_done:
            return
        name = type(request).__name__.removesuffix("Request")
        began = time.monotonic()

        def answered(_: Any) -> None:
            durations = self.durations.get(name)
            if durations is None:
                durations = self.durations[name] = MeasuredDurations()
            durations.add(time.monotonic() - began)

        sent.add_callback(answered)
        sent.add_errback(lambda error: self.errors.update([(name, type(error).__name__)]))

    # -- from any thread -----------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """An engine was stopped, and with it all that was open or waited, whether its thread could say so or not."""
        for (node_id, lane), number in self.created.items():
            ended = sum(count for (node, of, _), count in self.closed.items() if (node, of) == (node_id, lane))
            if number > ended:
                self.closed[node_id, lane, "disconnect"] += number - ended
        # What waited in a coroutine that nobody resumes may end when it is collected, and must not be missed twice.
        self.waits_for_limit = self.waits_for_limit.anew()
        self.waits_for_turn = self.waits_for_turn.anew()
        self.waits_for_lease = self.waits_for_lease.anew()

    def begin_reading(self, group: str | None) -> dict[str, int]:
        """What a consumer counts in how many records it has read, by topic; its polling thread's."""
        counts: dict[str, int] = defaultdict(int)
        with self._lock:
            self._reading[id(counts)] = group, counts
        return counts

    def end_reading(self, group: str | None, counts: dict[str, int]) -> None:
        """It reads no more. Again, it adds what a handler that closed its consumer has counted after that."""
        with self._lock:
            self._reading.pop(id(counts), None)
            self._add(self._consumed, group, counts)
            counts.clear()

    @staticmethod
    def _add(consumed: Counter[tuple[str | None, str]], group: str | None, read: dict[str, int]) -> None:
        for topic, records in list(read.items()):
            consumed[group, topic] += records

    def written(self, topic: str, records: int, *, acknowledged: bool) -> None:
        """A batch is done."""
        with self._lock:
            (self._produced if acknowledged else self._undelivered)[topic] += records

    def records(self) -> tuple[dict[tuple[str | None, str], int], dict[str, int], dict[str, int]]:
        """How many were consumed by group and topic, acknowledged by topic, and failed by topic."""
        with self._lock:
            consumed = Counter(self._consumed)
            for group, read in self._reading.values():
                self._add(consumed, group, read)
            return dict(consumed), dict(self._produced), dict(self._undelivered)


class WatchedBatches(IncompleteProducerBatches):  # type: ignore[misc]
    """A producer's batches that are not done yet; counts the records of those that are. From any thread, as stock.

    In place of a callback for each batch: whoever keeps a record's future would keep the batch with it.
    """

    def __init__(self, tally: Tally) -> None:
        super().__init__()
        self._tally = tally

    def remove(self, batch: Any) -> None:
        with self._lock:
            known = batch in self._incomplete
            self._incomplete.discard(batch)
        # A batch that was split is not done itself: its records are in others now.
        if known and batch.final_state is not None:
            acknowledged = batch.final_state is FinalState.SUCCEEDED
            self._tally.written(batch.topic_partition.topic, batch.record_count, acknowledged=acknowledged)
