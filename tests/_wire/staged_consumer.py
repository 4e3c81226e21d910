"""A consumer as far as ``Idling`` looks at one, under a clock of the test: for what threads would only race to."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

from kafka.structs import TopicPartition

from pooledkafka._fetch import Position
from pooledkafka._wire.idling import Idling

__all__ = ["Clock", "StagedConsumer"]


class Clock:
    """Goes on where somebody waits, and where the test says so."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


class Stirred:
    """A ``threading.Event`` under a clock of the test: nobody sets it while somebody waits."""

    def __init__(self, clock: Clock) -> None:
        self.waited: list[float] = []
        self.on_clear: Callable[[], None] = lambda: None  # what another thread does just before
        self.on_wait: Callable[[], None] = lambda: None  # likewise, while it is waited for
        self._clock = clock
        self._set = False

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True

    def clear(self) -> None:
        self.on_clear()
        self._set = False

    def wait(self, timeout: float) -> bool:
        if not self._set:
            self.waited.append(round(timeout, 6))
            self._clock.now += timeout
            self.on_wait()
        return self._set


class StagedConsumer:
    """A consumer with nothing to do, and its Idling; it counts what is asked of it."""

    def __init__(self, clock: Clock, **config: Any) -> None:
        self.clock = clock
        self.looks = 0
        self.releases = 0
        self.sent = 0
        self.heartbeats = 0
        self.fetching: dict[int, dict[TopicPartition, Position]] = {}
        self.fetched: deque[Any] = deque()  # what fetched_records returns, in order; then nothing
        self.while_looking: Callable[[], None] = lambda: None
        self.check: Callable[[], None] = lambda: None
        self.subscription = SimpleNamespace(assignment={}, partitions_auto_assigned=lambda: False)
        self.fetcher = SimpleNamespace(
            _completed_fetches=deque(),
            _next_partition_records=None,
            _next_in_line_exception_metadata=None,
            _cached_list_offsets_exception=None,
            _cached_log_truncation=None,
            _paused_completed_fetches={},
            _paused_partition_records={},
            _nodes_with_pending_fetch_requests=set(),
            fetched_records=lambda max_records, update_offsets: (self.fetched or deque([({}, False)])).popleft(),
            send_fetches=self._send,
        )
        self.coordinator = SimpleNamespace(
            completed_offset_commits=[],
            _async_commit_fenced=False,
            coordinator_unknown=lambda: False,
            need_rejoin=lambda: False,
            next_auto_commit_deadline=None,
            poll_heartbeat=self._beat,
            heartbeat=SimpleNamespace(last_poll=0.0),
        )
        consumer = SimpleNamespace(
            _subscription=self.subscription,
            _fetcher=self.fetcher,
            _coordinator=self.coordinator,
            config={
                "enable_auto_commit": False,
                "group_id": None,
                "heartbeat_interval_ms": 3_000,
                "max_poll_interval_ms": 300_000,
                "fetch_max_wait_ms": 500,
                "retry_backoff_ms": 100,
                **config,
            },
        )
        self.places = SimpleNamespace(look=self._look, unsettled=False)
        self.committed: dict[TopicPartition, int] = {}
        self.idling = Idling(
            consumer, cast("Any", self.places), self.fetching, lambda: self.committed, self._release, self._check
        )
        self.event = Stirred(clock)
        self.idling._stirred = self.event  # type: ignore[assignment]

    def _look(self) -> dict[Any, dict[TopicPartition, Position]]:
        self.looks += 1
        self.while_looking()
        wanted: dict[Any, dict[TopicPartition, Position]] = {}
        for partition, state in self.subscription.assignment.items():
            wanted.setdefault(state.node, {})[partition] = Position(state.offset)
        return wanted

    def _check(self) -> None:
        self.check()

    def _release(self) -> None:
        self.releases += 1

    def _send(self) -> None:
        self.sent += 1

    def _beat(self) -> None:
        self.heartbeats += 1
        self.coordinator.heartbeat.last_poll = self.clock.now

    def assign(self, *partitions: TopicPartition, node: int | None = 1, offset: int = 0) -> None:
        for partition in partitions:
            self.subscription.assignment[partition] = SimpleNamespace(node=node, offset=offset, paused=False)
