"""Each fault that a cluster can have, survived by stock kafka-python with nothing lost."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from kafka.admin import KafkaAdminClient

from integration.traffic import Traffic, create_topic
from pooledkafka.testing import KafkaCluster
from pooledkafka.testing._readiness import NoAnswerError, view_of

pytestmark = [
    pytest.mark.usefixtures("sockets_left_to_the_collector"),
    pytest.mark.filterwarnings("ignore:Exception ignored.*<socket:pytest.PytestUnraisableExceptionWarning"),
]

Act = Callable[[KafkaCluster, int], None]
Sign = Callable[[KafkaCluster, int], bool]


def view(cluster: KafkaCluster, node_id: int) -> Any:
    """What one broker says of the cluster, or None when it does not answer."""
    host, port = cluster.address_of(node_id).split(":")
    try:
        return view_of((host, int(port)))
    except NoAnswerError:
        return None


def is_fenced(cluster: KafkaCluster, node_id: int) -> bool:
    """Whether every other broker answers, and none counts this one as alive."""
    others = [view(cluster, other) for other in cluster.node_ids if other != node_id]
    return all(other is not None and node_id not in other.brokers for other in others)


def is_silent(cluster: KafkaCluster, node_id: int) -> bool:
    """Whether the broker does not answer clients although the others still count it as alive."""
    return view(cluster, node_id) is None and not is_fenced(cluster, node_id)


def answers_alone(cluster: KafkaCluster, node_id: int) -> bool:
    """Whether the broker still answers clients, while the others do not count it as alive."""
    return view(cluster, node_id) is not None and is_fenced(cluster, node_id)


def coordinator(cluster: KafkaCluster, group_id: str) -> int:
    """The group's coordinator: the leader of the offsets partition that the hash of its name selects."""
    code = 0
    for character in group_id:
        code = (31 * code + ord(character)) & 0xFFFFFFFF
    with KafkaAdminClient(**cluster.client_options()) as admin:
        (offsets,) = admin.describe_topics(["__consumer_offsets"])
    partitions = {partition["partition_index"]: partition["leader_id"] for partition in offsets["partitions"]}
    leader: int = partitions[(code & 0x7FFFFFFF) % len(partitions)]
    return leader


FAULTS: dict[str, tuple[Act, Sign, Act]] = {
    "paused": (KafkaCluster.pause, is_fenced, KafkaCluster.resume),
    "killed": (KafkaCluster.kill, is_fenced, KafkaCluster.start),
    "restarted": (KafkaCluster.restart, lambda cluster, node_id: True, lambda cluster, node_id: None),
    "cut off from clients": (lambda c, n: c.partition(n, "clients"), is_silent, KafkaCluster.heal),
    "cut off from brokers": (lambda c, n: c.partition(n, "brokers"), answers_alone, KafkaCluster.heal),
    "cut off from everyone": (lambda c, n: c.partition(n, "everyone"), is_fenced, KafkaCluster.heal),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_nothing_is_lost_when_the_groups_coordinator_is(kafka_fault_cluster: KafkaCluster, fault: str) -> None:
    cluster = kafka_fault_cluster
    inject, sign, recover = FAULTS[fault]
    topic, group_id = f"faults-{uuid.uuid4().hex[:8]}", f"group-{uuid.uuid4().hex[:8]}"
    create_topic(cluster.client_options(), topic, partitions=6)
    with Traffic(cluster.client_options(), topic, group_id) as traffic:
        traffic.wait_for_consumed(50)
        victim = coordinator(cluster, group_id)

        inject(cluster, victim)
        deadline = time.monotonic() + 30
        while not sign(cluster, victim):
            assert time.monotonic() < deadline, f"no sign of broker {victim} being {fault}"
        traffic.wait_for_acks(50)

        recover(cluster, victim)
        cluster.wait_until_healthy(60)
        traffic.wait_for_acks(50)
        traffic.check()
