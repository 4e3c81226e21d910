"""What all brokers of the embedded cluster know: topics, who is up, who coordinates what."""

from __future__ import annotations

import asyncio
import itertools
import uuid
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from kafka.errors import (
    InvalidPartitionsError,
    InvalidReplicationAssignmentError,
    InvalidReplicationFactorError,
    InvalidTopicError,
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
)

from .partition import Partition
from .placement import check_assignment, check_factor, placed
from .quotas import Quotas
from .settings import Settings
from .topic import Topic, is_legal_name
from .topic_config import checked_config

if TYPE_CHECKING:
    from .broker import Broker

__all__ = ["State"]

_SLOTS = 12  # as many partitions as the offsets and transaction topics would have


class State:
    """The cluster's metadata, which every broker knows at once; used on the loop's thread alone.

    ``groups`` and ``transactions`` are those of all coordinators, by group id and transactional id: which broker serves
    one is a matter of ``coordinator_of``, and like the records of an internal topic they outlive its broker.
    """

    def __init__(self, settings: Mapping[int, Settings]) -> None:
        self.cluster_id = uuid.uuid4().hex[:22]
        self.brokers: dict[int, Broker] = {}
        self.settings = dict(settings)
        self.defaults = next(iter(settings.values()))  # for what is the same on all brokers
        self.topics: dict[str, Topic] = {}
        self.groups: dict[str, Any] = {}
        self.transactions: dict[str, Any] = {}
        self.follower_delays_s: dict[int, float | None] = {}
        self.unreached: set[int] = set()  # brokers that the others do not reach now, given up or not yet
        self.quotas = Quotas(self.now)
        self._available = list(settings)  # in the order of their node ids
        self._coordinators: dict[int, int] = {}  # node id by slot, where one was chosen
        self._producer_ids = itertools.count(1_000)
        self._first_replica = itertools.count()

    # -- brokers -------------------------------------------------------------------------------------------------------

    @property
    def available(self) -> list[int]:
        """Node ids of the brokers that the controller believes to be up."""
        return list(self._available)

    @property
    def controller(self) -> int:
        return self._available[0] if self._available else -1

    def set_available(self, node_id: int, available: bool) -> None:
        """A broker has come back or gone: leaders and coordinators follow."""
        if available == (node_id in self._available):
            return
        if available:
            self._available = sorted([*self._available, node_id])
        else:
            self._available.remove(node_id)
        unclean = self.defaults.unclean_leader_election_enable
        for topic in list(self.topics.values()):
            for partition in topic.partitions:
                if available:
                    partition.up(node_id, unclean)
                else:
                    partition.down(node_id, unclean)
        self._tell_groups()

    # -- topics --------------------------------------------------------------------------------------------------------

    def topic(self, name: str) -> Topic:
        """Raises UnknownTopicOrPartitionError."""
        try:
            return self.topics[name]
        except KeyError:
            raise UnknownTopicOrPartitionError(f"there is no topic {name!r}") from None

    def topic_by_id(self, topic_id: uuid.UUID | None) -> Topic | None:
        return next((topic for topic in self.topics.values() if topic.topic_id == topic_id), None)

    def partition(self, topic: str, index: int) -> Partition:
        """Raises UnknownTopicOrPartitionError."""
        partitions = self.topic(topic).partitions
        if not 0 <= index < len(partitions):
            raise UnknownTopicOrPartitionError(f"topic {topic!r} has {len(partitions)} partitions, none is {index}")
        return partitions[index]

    def create_topic(
        self,
        name: str,
        partitions: int = -1,
        replication_factor: int = -1,
        config: Mapping[str, str] | None = None,
        assignment: Sequence[Sequence[int]] | None = None,
    ) -> Topic:
        """Make a topic; -1 means the brokers' default. Raises the error that CreateTopics answers."""
        self.check_new_topic(name, partitions, replication_factor, config, assignment)
        if assignment is None:
            count = self.defaults.num_partitions if partitions == -1 else partitions
            factor = self.defaults.default_replication_factor if replication_factor == -1 else replication_factor
            assignment = [self._replicas(factor) for _ in range(count)]
        topic = Topic(name, [], dict(config or {}))
        topic.partitions = [self._partition(topic, index, replicas) for index, replicas in enumerate(assignment)]
        self.topics[name] = topic
        return topic

    def check_new_topic(
        self,
        name: str,
        partitions: int = -1,
        replication_factor: int = -1,
        config: Mapping[str, str | None] | None = None,
        assignment: Sequence[Sequence[int]] | None = None,
    ) -> None:
        """Raise the error that CreateTopics would answer, without making anything.

        The order is that of Kafka's ReplicationControlManager.
        """
        self.check_new_name(name)
        checked_config(config or {})
        if assignment is not None:
            check_assignment(assignment, self.settings, self._available)
            return
        if replication_factor == 0 or replication_factor < -1:
            raise InvalidReplicationFactorError(
                f"replication factor {replication_factor}; expected 1 or more, or -1 for the default"
            )
        if partitions == 0 or partitions < -1:
            raise InvalidPartitionsError(f"{partitions} partitions; expected 1 or more, or -1 for the default")
        factor = self.defaults.default_replication_factor if replication_factor == -1 else replication_factor
        check_factor(factor, self.settings, self._available)

    def check_new_name(self, name: str) -> None:
        """Raise InvalidTopicError or TopicAlreadyExistsError for a name that no new topic may have."""
        if not is_legal_name(name):
            raise InvalidTopicError(f"{name!r} is no legal name: up to 249 letters, digits, dots, - and _")
        if name in self.topics:
            raise TopicAlreadyExistsError(f"topic {name!r} already exists")
        # The names of metrics have no dots, so that two such topics would be one there.
        if other := next((each for each in self.topics if each.replace(".", "_") == name.replace(".", "_")), None):
            raise InvalidTopicError(f"topic {name!r} collides with existing topic {other!r}")

    def check_more_partitions(
        self, topic: Topic, count: int, assignment: Sequence[Sequence[int]] | None = None
    ) -> None:
        """Raise the error that CreatePartitions would answer, without making anything."""
        has = len(topic.partitions)
        if count == has:
            raise InvalidPartitionsError(f"Topic already has {has} partition(s).")
        if count < has:
            raise InvalidPartitionsError(
                f"The topic {topic.name} currently has {has} partition(s); {count} would not be an increase."
            )
        factor = len(topic.partitions[0].replicas)
        if assignment is None:
            check_factor(factor, self.settings, self._available)
        elif len(assignment) != count - has:
            raise InvalidReplicationAssignmentError(
                f"Attempted to add {count - has} additional partition(s), but only {len(assignment)} assignment(s) "
                f"were specified."
            )
        else:
            check_assignment(assignment, self.settings, self._available, factor, has)

    def add_partitions(self, topic: Topic, count: int, assignment: Sequence[Sequence[int]] | None = None) -> None:
        """Let a topic have ``count`` partitions, more than it has. Raises the error that CreatePartitions answers."""
        self.check_more_partitions(topic, count, assignment)
        has, factor = len(topic.partitions), len(topic.partitions[0].replicas)
        for index in range(has, count):
            replicas = self._replicas(factor) if assignment is None else assignment[index - has]
            topic.partitions.append(self._partition(topic, index, replicas))

    def delete_topic(self, name: str) -> None:
        """Raises UnknownTopicOrPartitionError."""
        topic = self.topic(name)
        del self.topics[name]
        for partition in topic.partitions:
            partition.delete()
        for group in self.groups.values():
            group.offsets.delete_topic(name)

    def _replicas(self, factor: int) -> list[int]:
        racks = {node_id: settings.broker_rack for node_id, settings in self.settings.items()}
        return placed(factor, next(self._first_replica), racks, self._available)

    def _partition(self, topic: Topic, index: int, replicas: Sequence[int]) -> Partition:
        def min_in_sync() -> int:
            return topic.setting("min.insync.replicas", self.defaults.min_insync_replicas)

        return Partition(
            topic.name,
            index,
            replicas,
            self._available,
            min_in_sync,
            self._follower_delay_s,
            self.defaults.replica_lag_time_max_ms / 1000,
        )

    def _follower_delay_s(self, leader: int, follower: int) -> float | None:
        if not self.unreached.isdisjoint((leader, follower)):
            return None
        return self.follower_delays_s.get(follower, 0)

    # -- coordinators --------------------------------------------------------------------------------------------------

    def coordinator_of(self, key: str) -> int:
        """The node id of the broker that coordinates this group or transactional id; -1 where no broker is up."""
        slot = zlib.crc32(key.encode()) % _SLOTS
        node_id = self._coordinators.get(slot)
        if node_id not in self._available:
            if not self._available:
                return -1
            node_id = self._coordinators[slot] = self._available[slot % len(self._available)]
        return node_id

    def move_coordinator(self, key: str, node_id: int) -> None:
        """Let another broker coordinate this group or transactional id, and those that share its slot."""
        self._coordinators[zlib.crc32(key.encode()) % _SLOTS] = node_id
        self._tell_groups()

    def _tell_groups(self) -> None:
        for group in list(self.groups.values()):
            group.follow_coordinator()

    # -- the rest ------------------------------------------------------------------------------------------------------

    def new_producer_id(self) -> int:
        return next(self._producer_ids)

    def later(self, delay_s: float, function: Callable[..., object], *arguments: Any) -> asyncio.TimerHandle:
        """Call a function on the loop after some seconds; cancel by the handle."""
        return asyncio.get_running_loop().call_later(delay_s, function, *arguments)

    def now(self) -> float:
        """The loop's steady clock, in seconds."""
        return asyncio.get_running_loop().time()
