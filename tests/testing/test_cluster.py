from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from pooledkafka.testing import Cluster, ClusterError, KafkaCluster
from pooledkafka.testing._network import checked_side


@pytest.mark.parametrize("brokers", [0, 2, 4, -1, None, "3"])
def test_any_number_of_brokers_but_one_and_three(brokers: Any) -> None:
    with pytest.raises(ValueError, match=rf"brokers is {brokers!r}; expected 1 or 3"):
        KafkaCluster(brokers)


@pytest.mark.parametrize("timeout_s", [0, -1.0, float("nan")])
def test_a_timeout_that_is_none(timeout_s: float) -> None:
    with pytest.raises(ValueError, match="expected a number of seconds above 0"):
        KafkaCluster(timeout_s=timeout_s)


def test_arguments_are_checked_before_anything_is_started() -> None:
    with pytest.raises(ValueError, match="unknown listener 'ssl'"):
        KafkaCluster(listeners=["ssl"])
    with pytest.raises(ValueError, match="config sets listeners"):
        KafkaCluster(config={"listeners": "X://:1"})
    with pytest.raises(ValueError, match=r"config sets node\.id"):
        KafkaCluster(broker_config={1: {"node.id": "7"}})


def test_a_side_that_is_none() -> None:
    with pytest.raises(ValueError, match="from_ is 'me'; expected one of 'clients', 'brokers', 'everyone'"):
        checked_side("me")
    assert checked_side("brokers") == "brokers"


def test_what_is_known_before_it_is_open() -> None:
    cluster = KafkaCluster(3, listeners=["tls"])
    assert cluster.node_ids == (1, 2, 3)
    assert cluster.supports_faults
    assert repr(cluster) == "<KafkaCluster of 3 [plaintext, tls]: closed>"


@pytest.mark.parametrize(
    "use",
    [
        lambda cluster: cluster.bootstrap_servers,
        lambda cluster: cluster.client_options(),
        lambda cluster: cluster.address_of(1),
        lambda cluster: cluster.logs(1),
        lambda cluster: cluster.wait_until_healthy(),
        lambda cluster: cluster.pause(1),
        lambda cluster: cluster.resume(1),
        lambda cluster: cluster.kill(1),
        lambda cluster: cluster.start(1),
        lambda cluster: cluster.restart(1),
        lambda cluster: cluster.partition(1),
        lambda cluster: cluster.heal(1),
    ],
)
def test_what_needs_an_open_cluster(use: Callable[[Cluster], object]) -> None:
    with pytest.raises(ClusterError, match=r"the cluster is not open; call open\(\), or use it in a with statement"):
        use(KafkaCluster())


@pytest.mark.parametrize("node_id", [0, 2, 4, "1"])
def test_a_broker_that_is_not_there(node_id: Any) -> None:
    with pytest.raises(ValueError, match=rf"there is no broker {node_id!r}; the node ids are 1"):
        KafkaCluster().address_of(node_id)


def test_a_listener_that_the_cluster_has_not() -> None:
    with pytest.raises(ValueError, match=r"has no tls listener; it has plaintext: add it to KafkaCluster\(listeners="):
        KafkaCluster().client_options("tls")


def test_closing_what_was_never_opened() -> None:
    cluster = KafkaCluster()
    cluster.close()
    cluster.close()
