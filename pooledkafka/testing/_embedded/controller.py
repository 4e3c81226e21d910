"""What becomes of brokers and partitions on purpose: who runs, who is cut off, who leads."""

from __future__ import annotations

import asyncio

from .partition import Partition
from .state import State

__all__ = ["Controller"]


class Controller:
    """Carries out the faults of `EmbeddedKafka` that are of brokers and partitions; on the loop.

    A broker serves its clients unless it is down, paused or cut off from them. The others count on it unless it is
    down, paused or cut off from them; when they do not, its partitions get other leaders after
    ``broker.session.timeout.ms``.
    """

    def __init__(self, state: State) -> None:
        self._state = state
        self._paused: set[int] = set()
        self._cut: dict[int, str] = {}  # from whom: "clients", "brokers" or "everyone"
        self._giving_up: dict[int, asyncio.TimerHandle] = {}

    # -- brokers -------------------------------------------------------------------------------------------------------

    def kill(self, node_id: int) -> None:
        self._state.brokers[node_id].stop()
        self._settle(node_id)

    def start(self, node_id: int) -> None:
        broker = self._state.brokers[node_id]
        if not broker.is_up:
            broker.start()
            self._paused.discard(node_id)
            self._cut.pop(node_id, None)
            self._settle(node_id)

    def restart(self, node_id: int) -> None:
        self._state.set_available(node_id, False)
        self._state.brokers[node_id].stop()
        self.start(node_id)

    def pause(self, node_id: int) -> None:
        self._paused.add(node_id)
        self._settle(node_id)

    def resume(self, node_id: int) -> None:
        self._paused.discard(node_id)
        self._settle(node_id)

    def cut(self, node_id: int, from_: str) -> None:
        already = self._cut.get(node_id, from_)
        self._cut[node_id] = from_ if already == from_ else "everyone"
        self._settle(node_id)

    def heal(self, node_id: int) -> None:
        self._cut.pop(node_id, None)
        self._settle(node_id)

    def _settle(self, node_id: int) -> None:
        if self._serves(node_id):
            self._state.brokers[node_id].running.set()
        else:
            self._state.brokers[node_id].running.clear()
        if (timer := self._giving_up.pop(node_id, None)) is not None:
            timer.cancel()
        if self._is_reached(node_id):
            self._state.unreached.discard(node_id)
            self._state.set_available(node_id, True)
            self._catch_up()
            return
        self._state.unreached.add(node_id)
        if node_id in self._state.available:
            timeout_ms = self._state.settings[node_id].broker_session_timeout_ms
            if timeout_ms:
                self._giving_up[node_id] = self._state.later(timeout_ms / 1000, self._give_up, node_id)
            else:
                self._give_up(node_id)

    def _give_up(self, node_id: int) -> None:
        self._giving_up.pop(node_id, None)
        self._state.set_available(node_id, False)

    def _serves(self, node_id: int) -> bool:
        return node_id not in self._paused and self._cut.get(node_id) not in ("clients", "everyone")

    def _is_reached(self, node_id: int) -> bool:
        up = self._state.brokers[node_id].is_up
        return up and node_id not in self._paused and self._cut.get(node_id) not in ("brokers", "everyone")

    def reset(self) -> None:
        """End all that is in force here, and the quotas."""
        self._paused.clear()
        self._cut.clear()
        self._state.follower_delays_s.clear()
        self._state.quotas.limits.clear()
        for node_id, broker in self._state.brokers.items():
            if broker.is_up:
                self._settle(node_id)
            else:
                self.start(node_id)
        self._catch_up()

    # -- partitions ----------------------------------------------------------------------------------------------------

    def move_leader(self, topic: str, index: int, node_id: int, unclean: bool) -> None:
        partition = self._state.partition(topic, index)
        if node_id not in partition.replicas or node_id not in self._state.available:
            raise ValueError(
                f"broker {node_id} cannot lead {topic}-{index}: its replicas are {partition.replicas}, "
                f"and the brokers {self._state.available} are up"
            )
        if node_id not in partition.in_sync and not unclean:
            raise ValueError(
                f"broker {node_id} is not in sync with {topic}-{index}, but {partition.in_sync} are: led by it, the "
                f"partition would lose records; say unclean=True if it is to"
            )
        partition.lead(node_id)

    def truncate(self, topic: str, index: int, offset: int) -> None:
        partition = self._state.partition(topic, index)
        log = partition.log
        if not log.start_offset <= offset <= log.end_offset:
            raise ValueError(
                f"offset is {offset!r}; the log of {topic}-{index} goes from {log.start_offset} to {log.end_offset}"
            )
        partition.truncate_to(offset)
        partition.leader_epoch += 1

    def slow_follower(self, node_id: int, delay_s: float | None) -> None:
        self._state.follower_delays_s[node_id] = delay_s
        self._catch_up()

    def _catch_up(self) -> None:
        for partition in self._partitions():
            partition.catch_up()

    def _partitions(self) -> list[Partition]:
        return [partition for topic in self._state.topics.values() for partition in topic.partitions]
