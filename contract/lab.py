"""What a test asks of the cluster, whichever it is: topics, connections, who leads what."""

from __future__ import annotations

import itertools
import re
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from contract.records import batch
from contract.requests import (
    EARLIEST,
    api_versions,
    committed,
    create_topics,
    fetch,
    find_coordinator,
    list_offsets,
    metadata,
    new_topic,
    of_partitions,
    produce,
)
from contract.wire import TIMEOUT_S, Wire
from pooledkafka.testing import Cluster

__all__ = ["Lab", "until"]

_T = TypeVar("_T")
_PAUSE_S = 0.02
_names = itertools.count(1)


def until(ask: Callable[[], _T], met: Callable[[_T], object] = bool, timeout_s: float = TIMEOUT_S) -> _T:
    """Ask again and again until the answer meets a condition, and return it. Fails after a time."""
    deadline = time.monotonic() + timeout_s
    while not met(answer := ask()):
        assert time.monotonic() < deadline, f"not so after {timeout_s:g} s: {answer!r}"
        time.sleep(_PAUSE_S)
    return answer


class Lab:
    """One test's use of a cluster; its connections are closed after the test."""

    def __init__(self, cluster: Cluster, test: str) -> None:
        self.cluster = cluster
        self._test = re.sub(r"[^a-z0-9]+", "-", test.partition("[")[0].removeprefix("test_"))[:60]
        self._wires: list[Wire] = []
        self._by_node: dict[int, Wire] = {}

    def close(self) -> None:
        for wire in self._wires:
            wire.close()

    def name(self, what: str = "") -> str:
        """A name that nobody has used, for a topic, a group or a client."""
        return f"{self._test}-{what}{next(_names)}"

    # -- connections ---------------------------------------------------------------------------------------------------

    def connect(self, node_id: int, client_id: str = "contract") -> Wire:
        """A new connection."""
        return self.connect_to(self.cluster.address_of(node_id), client_id)

    def connect_to(self, address: str, client_id: str = "contract") -> Wire:
        """A new connection to some listener."""
        wire = Wire(address, client_id)
        self._wires.append(wire)
        return wire

    def broker(self, node_id: int) -> Wire:
        """The test's own connection to a broker for what does not park; always the same one."""
        if node_id not in self._by_node:
            self._by_node[node_id] = self.connect(node_id)
        return self._by_node[node_id]

    @property
    def any(self) -> Wire:
        """A connection to some broker."""
        return self.broker(self.cluster.node_ids[0])

    def other_than(self, *node_ids: int) -> int:
        """The id of another broker."""
        return next(each for each in self.cluster.node_ids if each not in node_ids)

    def offers(self, request_class: Any, version: int) -> bool:
        """Whether the cluster says that it serves a request in this version."""
        listed = self.any.ask(api_versions(), 3).api_keys
        highest = next((each.max_version for each in listed if each.api_key == request_class.API_KEY), -1)
        return bool(version <= highest)

    def forget_connections(self) -> None:
        """Do not use the test's own connections any more: brokers have been restarted."""
        self._by_node.clear()

    # -- topics --------------------------------------------------------------------------------------------------------

    def topic(self, partitions: int = 1, replicas: int = -1, **config: str) -> str:
        """Make a topic; returns its name when all its partitions are led and all brokers know that."""
        name = self.name()
        settings = {key.replace("_", "."): value for key, value in config.items()}
        response = self.any.ask(create_topics(new_topic(name, partitions, replicas, settings)), 5)
        assert response.topics[0].error_code == 0, response
        self.wait_for_topic(name, partitions)
        return name

    def topic_led_by(self, *node_ids: int) -> str:
        """Make a topic with a partition for each broker named, which has its only replica."""
        name = self.name()
        response = self.any.ask(create_topics(new_topic(name, assignment=[[node_id] for node_id in node_ids])), 5)
        assert response.topics[0].error_code == 0, response
        self.wait_for_topic(name, len(node_ids))
        return name

    def wait_for_topic(self, name: str, partitions: int = 1) -> None:
        """Return when all brokers show this many partitions, all in sync, and their leaders serve them."""
        for node_id in self.cluster.node_ids:
            until(partial(self.partitions, name, node_id), partial(_complete, count=partitions))
        for index in range(partitions):
            until(partial(self._is_served, name, index))

    def _is_served(self, topic: str, index: int) -> bool:
        response = self.at_leader(topic, index).ask(list_offsets({(topic, index): EARLIEST}), 4)
        return bool(of_partitions(response)[topic, index].error_code == 0)

    def partitions(self, topic: str, node_id: int | None = None) -> list[Any]:
        """A topic's partitions as a broker's Metadata shows them, by their index."""
        wire = self.any if node_id is None else self.broker(node_id)
        (found,) = wire.ask(metadata(topic), 9).topics
        return sorted(found.partitions, key=lambda each: int(each.partition_index))

    def leader(self, topic: str, partition: int = 0) -> int:
        """The node id of a partition's leader."""
        return int(self.partitions(topic)[partition].leader_id)

    def at_leader(self, topic: str, partition: int = 0) -> Wire:
        """The test's own connection to a partition's leader."""
        return self.broker(self.leader(topic, partition))

    def parked_at(self, topic: str, partition: int = 0) -> Wire:
        """A new connection to a partition's leader."""
        return self.connect(self.leader(topic, partition))

    # -- records -------------------------------------------------------------------------------------------------------

    def write(self, topic: str, *contents: bytes, partition: int = 0) -> int:
        """Produce a batch; returns its first offset."""
        response = self.at_leader(topic, partition).ask(produce({(topic, partition): batch(*contents)}), 9)
        part = of_partitions(response)[topic, partition]
        assert part.error_code == 0, response
        return int(part.base_offset)

    def read(self, topic: str, offset: int = 0, *, partition: int = 0, version: int = 11, **options: Any) -> Any:
        """Fetch one partition without waiting; returns its part of the response."""
        response = self.at_leader(topic, partition).ask(fetch({(topic, partition): offset}, **options), version)
        return of_partitions(response)[topic, partition]

    # -- coordinators --------------------------------------------------------------------------------------------------

    def coordinator_of(self, key: str, transactional: bool = False) -> int:
        """The node id of the broker that coordinates a group or a transactional id."""
        found = until(
            lambda: self.any.ask(find_coordinator(key, transactional), 3),
            lambda response: response.error_code == 0,
        )
        return int(found.node_id)

    def group(self) -> tuple[str, int]:
        """The name of a new group, and the node id of its coordinator, once that is ready."""
        name = self.name("group-")
        return name, self._ready(name)

    def _ready(self, group: str) -> int:
        def asked() -> tuple[int, int]:
            node_id = self.coordinator_of(group)
            return self.broker(node_id).ask(committed(group, []), 7).error_code, node_id

        return until(asked, lambda answer: answer[0] == 0)[1]


def _complete(partitions: list[Any], count: int) -> bool:
    return len(partitions) == count and all(
        each.error_code == 0 and each.leader_id >= 0 and len(each.isr_nodes) == len(each.replica_nodes)
        for each in partitions
    )
