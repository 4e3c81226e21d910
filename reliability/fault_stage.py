"""Carries faults out on a cluster, and writes down when."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer
from kafka.errors import KafkaError
from kafka.structs import TopicPartition

from pooledkafka.testing import Cluster
from reliability.fault_schedule import Fault, Kind

__all__ = ["HEALTHY_WITHIN_S", "Incident", "Stage", "read_incidents"]

HEALTHY_WITHIN_S = 300.0  # a bound: what takes so long on a busy machine is slow, not broken
_ANSWERED_WITHIN_S = 120.0
_OFFSETS_TOPIC = "__consumer_offsets"


@dataclass(frozen=True)
class Incident:
    """A fault that was. Times are of the clock that all processes of a machine share (``time.monotonic``)."""

    kind: str
    node_id: int
    began: float
    healed: float
    """When the fault was undone; of a broker that was killed, when it was started again."""
    healthy: float
    """When every broker was up, every replica in sync, and every partition led by its first replica again."""
    calm_until: float


class Stage:
    """A cluster to whose brokers things happen, one after the other. For one thread."""

    def __init__(self, cluster: Cluster, topics: list[str], written_to: Path) -> None:
        self._cluster = cluster
        self._topics = topics
        self._file = written_to

    def arrange(self) -> None:
        """Put replicas, leaders and the groups' coordinators where they are in every run."""
        with KafkaConsumer(group_id="anybody", **self._cluster.client_options()) as consumer:
            consumer.committed(TopicPartition(self._topics[0], 0))  # brokers make the offsets' topic when it is needed
        nodes = list(self._cluster.node_ids)
        self._reassign([*self._topics, _OFFSETS_TOPIC], lambda index, _: nodes[index % 3 :] + nodes[: index % 3])
        self._get_well()

    def carry_out(self, fault: Fault) -> Incident:
        """Let it happen, heal it, wait until the cluster is well and then for the fault's calm."""
        began = time.monotonic()
        healed = self._happen(fault)
        self._get_well()
        healthy = time.monotonic()
        time.sleep(fault.calm_s)
        incident = Incident(fault.kind.value, fault.node_id, began, healed, healthy, time.monotonic())
        with self._file.open("a") as file:
            file.write(json.dumps(asdict(incident)) + "\n")
        return incident

    def _happen(self, fault: Fault) -> float:
        cluster, node_id = self._cluster, fault.node_id
        match fault.kind:
            case Kind.PAUSE:
                return self._hold(fault, cluster.pause, cluster.resume)
            case Kind.KILL:
                return self._hold(fault, cluster.kill, cluster.start)
            case Kind.CUT_FROM_CLIENTS:
                return self._hold(fault, lambda node: cluster.partition(node, "clients"), cluster.heal)
            case Kind.CUT_FROM_BROKERS:
                return self._hold(fault, lambda node: cluster.partition(node, "brokers"), cluster.heal)
            case Kind.RESTART:
                cluster.restart(node_id)
            case Kind.ROLLING_RESTART:
                for node in cluster.node_ids:
                    cluster.restart(node)
                    cluster.wait_until_healthy(HEALTHY_WITHIN_S)
            case Kind.MOVE_LEADERS:
                self._reassign(self._topics, rotated)
            case Kind.MOVE_COORDINATORS:
                self._reassign([_OFFSETS_TOPIC], rotated)
        return time.monotonic()

    @staticmethod
    def _hold(fault: Fault, act: Callable[[int], None], undo: Callable[[int], None]) -> float:
        act(fault.node_id)
        time.sleep(fault.hold_s)
        undo(fault.node_id)
        return time.monotonic()

    def _get_well(self) -> None:
        """Leaders return to where they were, as Kafka itself sees to every few minutes; else broker after broker would
        lead nothing, and its next fault harm nobody."""
        self._cluster.wait_until_healthy(HEALTHY_WITHIN_S)
        self._elect([*self._topics, _OFFSETS_TOPIC])
        self._cluster.wait_until_healthy(HEALTHY_WITHIN_S)

    def _reassign(self, topics: list[str], replicas_of: Callable[[int, list[int]], list[int]]) -> None:
        """Give each partition its replicas in another order, the first of which is to lead, and have it lead."""
        orders = {
            TopicPartition(topic["name"], partition["partition_index"]): replicas_of(
                partition["partition_index"], partition["replica_nodes"]
            )
            for topic in self._ask(lambda admin: admin.describe_topics(topics))
            for partition in topic["partitions"]
        }
        answers = self._ask(lambda admin: admin.alter_partition_reassignments(orders))
        if refused := {where: error for where, error in answers.items() if error}:
            raise RuntimeError(f"replicas could not be put in another order: {refused}")
        while self._ask(lambda admin: admin.list_partition_reassignments()):
            time.sleep(0.05)
        self._elect(topics)

    def _elect(self, topics: list[str]) -> None:
        self._ask(lambda admin: admin.elect_leaders(0, topics))

    def _ask(self, question: Callable[[Any], Any]) -> Any:
        """Ask again where it fails: what was just started may not be ready yet, or the controller has moved."""
        give_up_at = time.monotonic() + _ANSWERED_WITHIN_S
        while True:
            try:
                with KafkaAdminClient(**self._cluster.client_options()) as admin:
                    return question(admin)
            except KafkaError:
                if time.monotonic() > give_up_at:
                    raise
                time.sleep(0.2)


def rotated(_: int, replicas: list[int]) -> list[int]:
    return [*replicas[1:], replicas[0]]


def read_incidents(file: Path) -> list[Incident]:
    return [Incident(**json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []
