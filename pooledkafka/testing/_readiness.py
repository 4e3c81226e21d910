"""Whether a cluster is healthy, as its brokers themselves see it.

Not by connecting: Docker's proxy accepts for a broker that is paused or still starting. Not by a client either, which
asks whichever broker it likes: every broker must answer, and all must say the same.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kafka.errors import KafkaError
from kafka.protocol.metadata import MetadataRequest
from kafka.protocol.parser import KafkaProtocol

Address = tuple[str, int]
# (leader, leader epoch, replicas, replicas in sync)
Partition = tuple[int, int, frozenset[int], frozenset[int]]

_ANSWER_TIMEOUT_S = 2.0
_PAUSE_S = 0.1
# Of Kafka 2.4 to 4.x: the brokers in its answer are those that are registered and not fenced.
_METADATA_VERSION = 9


@dataclass(frozen=True)
class ClusterView:
    """What one broker says of the cluster."""

    brokers: Mapping[int, Address]
    partitions: Mapping[tuple[str, int], Partition]
    broken_topics: frozenset[str]


class NoAnswerError(Exception):
    """A broker did not answer, or not as a broker does."""


def view_of(address: Address, timeout_s: float = _ANSWER_TIMEOUT_S) -> ClusterView:
    """Ask the broker at `address`. Raises NoAnswerError after at most about `timeout_s`."""
    try:
        response = _exchange(address, MetadataRequest[_METADATA_VERSION](topics=None), time.monotonic() + timeout_s)
    except (OSError, KafkaError) as error:
        raise NoAnswerError(f"no answer from {address[0]}:{address[1]} ({error or type(error).__name__})") from error
    return ClusterView(
        {broker.node_id: (broker.host, broker.port) for broker in response.brokers},
        {
            (topic.name, partition.partition_index): (
                partition.leader_id,
                partition.leader_epoch,
                frozenset(partition.replica_nodes),
                frozenset(partition.isr_nodes),
            )
            for topic in response.topics
            for partition in topic.partitions
        },
        frozenset(topic.name for topic in response.topics if topic.error_code),
    )


def problem(addresses: Mapping[int, Address]) -> str | None:
    """The first thing that keeps the cluster from being healthy, in one phrase; None when nothing does."""
    views: dict[int, ClusterView] = {}
    for node_id, address in addresses.items():
        try:
            view = views[node_id] = view_of(address)
        except NoAnswerError as error:
            return f"broker {node_id}: {error}"
        if absent := sorted(addresses.keys() - view.brokers.keys()):
            return f"broker {node_id} does not see broker {', '.join(map(str, absent))}"
        if view.broken_topics:
            return f"broker {node_id} reports an error for topic {', '.join(sorted(view.broken_topics))}"
        for (topic, index), (leader, _, replicas, in_sync) in view.partitions.items():
            if leader not in replicas:
                return f"partition {topic}-{index} has no leader"
            if replicas != in_sync:
                return f"partition {topic}-{index} has replicas {sorted(replicas)}, in sync only {sorted(in_sync)}"
    if any(view != views[min(views)] for view in views.values()):
        return "the brokers do not agree yet on topics and leaders"
    return None


def wait_for(check: Callable[[], str | None], timeout_s: float) -> str | None:
    """Call `check` until it returns None, and return None; after `timeout_s`, return what it returned last."""
    deadline = time.monotonic() + timeout_s
    while (found := check()) is not None and time.monotonic() < deadline:
        time.sleep(_PAUSE_S)
    return found


def _exchange(address: Address, request: Any, deadline: float) -> Any:
    """Send one request on a connection of its own, and return the answer."""
    protocol = KafkaProtocol(client_id="pooledkafka-testing")
    protocol.send_request(request)
    with socket.create_connection(address, timeout=_left(deadline)) as connection:
        connection.sendall(protocol.send_bytes())
        while True:
            connection.settimeout(_left(deadline))
            if not (received := connection.recv(65536)):
                raise ConnectionError("the connection was closed")
            for _, response in protocol.receive_bytes(received):
                return response


def _left(deadline: float) -> float:
    if (left := deadline - time.monotonic()) <= 0:
        raise TimeoutError("timed out")
    return left
