"""Lets each commit wait for replicas by itself.

A coordinator answers an OffsetCommit when the replicas of the offsets have it, and until then nothing else on that
connection. As a rule that takes milliseconds. While a replica is down or slow it takes seconds: on the control lane the
heartbeats of all members would stand behind the commits of all members, one after the other, until the coordinator took
the members for dead.
"""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from kafka.errors import KafkaConnectionError, RequestTimedOutError
from kafka.future import Future

from pooledkafka._wire.futures import attempt
from pooledkafka._wire.lanes import Lane, LaneKey
from pooledkafka._wire.manager import SharedManager
from pooledkafka.errors import PoolClosedError

__all__ = ["Commits"]

_PATIENCE_S = 0.05
"""How long a commit may keep others waiting. A healthy cluster takes much less, so it sees no more connections."""

_LATE_S = 0.01
"""By how much the event loop is late where there is too much to do."""

_TIMES_LATE = 3
_BUSY_PATIENCE_S = 1.0
"""A commit then has three times as long more, and a second at most: what it waits for is the event loop, and one more
connection for each other commit is the last thing that helps."""

_SendLeased = Callable[[set[LaneKey], int, Any, float, Callable[[], bool]], Future]


@dataclass(eq=False)
class _Commit:
    owner: object
    leases: set[LaneKey]  # of the owner
    node_id: int
    request: Any
    give_up_at: float
    gone: Callable[[], bool]  # whether the owner has closed
    future: Future = field(default_factory=Future)


class _Line:
    """The commits to one broker that go over its control lane: one is there at any time, and the others wait for it."""

    def __init__(self) -> None:
        self.under_way: Future | None = None
        self.is_slow = False  # the one that is under way: short requests go round it
        self.lends = False  # so slow that other commits are sent over leased connections
        self.waiting: deque[_Commit] = deque()


class Commits:
    """Sends commits: over the control lane in turns, or where that is slow each over a leased connection.

    Those of one owner are sent one after the other, each when the one before has been answered: over different
    connections an older one could otherwise come last, and take its group back. It is no slower, since the broker
    would not have read it earlier.

    On the I/O thread only.
    """

    def __init__(self, net: Any, manager: SharedManager, send_leased: _SendLeased) -> None:
        self._net = net
        self._manager = manager
        self._send_leased = send_leased
        self._lines: defaultdict[int, _Line] = defaultdict(_Line)
        self._behind: dict[object, deque[_Commit]] = {}  # by each owner that has a commit under way: its next ones
        self._closed = False

    def send(
        self,
        owner: object,
        leases: set[LaneKey],
        node_id: int,
        request: Any,
        timeout_ms: float,
        gone: Callable[[], bool],
    ) -> Future:
        """Send ``owner``'s next commit; a leased connection is in ``leases`` while it has it."""
        commit = _Commit(owner, leases, node_id, request, time.monotonic() + timeout_ms / 1000, gone)
        behind = self._behind.get(owner)
        if behind is not None:
            behind.append(commit)
        else:
            self._behind[owner] = deque()
            self._start(commit)
        return commit.future

    def forget(self, owner: object) -> None:
        """Send nothing more of an owner that has closed: its group may have committed more meanwhile."""
        self._give_up(owner, PoolClosedError("the consumer was closed before its commit was sent"))

    def _give_up(self, owner: object, error: Exception) -> None:
        behind = self._behind.pop(owner, deque())
        for line in self._lines.values():
            behind.extend(commit for commit in line.waiting if commit.owner is owner)
            line.waiting = deque(commit for commit in line.waiting if commit.owner is not owner)
        for commit in behind:
            commit.future.failure(error)

    def are_slow(self, node_id: int) -> bool:
        """Whether what is sent to the broker's control lane now would stand behind a commit that takes long."""
        return node_id in self._lines and self._lines[node_id].is_slow

    def close(self) -> None:
        """Send no more: those that wait fail."""
        self._closed = True
        for owner in list(self._behind):
            self._give_up(owner, _disconnected())

    def _start(self, commit: _Commit) -> None:
        line = self._lines[commit.node_id]
        if self._is_too_late(commit):
            return
        if line.lends:
            self._over_a_lease(commit)
        elif line.under_way is None and not line.waiting:
            self._over_control(line, commit)
        else:
            line.waiting.append(commit)

    def _is_too_late(self, commit: _Commit) -> bool:
        """Whether it cannot be sent any more, and has failed by that."""
        if self._closed:
            error: Exception = _disconnected()
        elif time.monotonic() >= commit.give_up_at:
            error = RequestTimedOutError("the commits before it took all its time")
        else:
            return False
        self._answered(commit, Future().failure(error))
        return True

    def _over_control(self, line: _Line, commit: _Commit) -> None:
        now = time.monotonic()
        key, timeout_ms = LaneKey(commit.node_id, Lane.CONTROL), (commit.give_up_at - now) * 1000
        sent = attempt(lambda: self._manager.send_on(key, commit.request, timeout_ms))
        line.under_way = sent
        self._watch(commit.node_id, line, sent, now)

        def answered(_: Any) -> None:
            line.under_way = None
            line.is_slow = line.lends = False
            self._soon(lambda: self._next(line))  # before its owner's next, which goes behind those that wait
            self._answered(commit, sent)

        sent.add_both(answered)

    def _next(self, line: _Line) -> None:
        if line.waiting and line.under_way is None:
            commit = line.waiting.popleft()
            if self._is_too_late(commit):
                self._soon(lambda: self._next(line))
            else:
                self._over_control(line, commit)

    def _watch(self, node_id: int, line: _Line, sent: Future, since: float) -> None:
        due = time.monotonic() + _PATIENCE_S

        def look() -> None:
            if line.under_way is not sent:
                return
            now = time.monotonic()
            if not self._manager.is_connected(LaneKey(node_id, Lane.CONTROL)):
                # It waits for no replica, but for the broker; more connections are the last thing that helps then.
                self._watch(node_id, line, sent, now)
                return
            line.is_slow = True
            late_s = now - due
            if late_s > _LATE_S and now - since < _PATIENCE_S + min(_TIMES_LATE * late_s, _BUSY_PATIENCE_S):
                self._watch(node_id, line, sent, since)
                return
            line.lends = True
            while line.waiting:
                commit = line.waiting.popleft()
                if not self._is_too_late(commit):
                    self._over_a_lease(commit)

        timer = self._net.call_later(_PATIENCE_S, look)
        sent.add_both(lambda _: self._net.cancel(timer))

    def _over_a_lease(self, commit: _Commit) -> None:
        timeout_ms = max(1.0, (commit.give_up_at - time.monotonic()) * 1000)
        sent = self._send_leased(commit.leases, commit.node_id, commit.request, timeout_ms, commit.gone)
        sent.add_both(lambda _: self._answered(commit, sent))

    def _answered(self, commit: _Commit, sent: Future) -> None:
        behind = self._behind.get(commit.owner)
        if behind:
            following = behind.popleft()
            self._soon(lambda: self._start(following))
        else:
            self._behind.pop(commit.owner, None)
        if sent.exception is not None:
            commit.future.failure(sent.exception)
        else:
            commit.future.success(sent.value)

    def _soon(self, action: Callable[[], None]) -> None:
        # Not at once: commits that fail without being sent would go through all that wait in one call.
        if self._closed:
            action()
        else:
            self._net.call_soon(action)


def _disconnected() -> KafkaConnectionError:
    return KafkaConnectionError("the pool was disconnected")
