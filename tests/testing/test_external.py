from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from pooledkafka.testing import Cluster, ClusterError, ExternalCluster, FaultUnsupportedError, UnhealthyClusterError
from pooledkafka.testing._ports import pick_free_ports
from tests.testing.test_readiness import FakeBroker, metadata, topic


@pytest.fixture
def servers() -> Iterator[str]:
    """The address of broker 1 of a cluster whose broker 2 has died."""
    (dead,) = pick_free_ports(1)

    def answer(request: bytes) -> bytes:
        return metadata({2: ("127.0.0.1", dead), 1: broker.address}, [topic()])(request)

    with FakeBroker(answer) as broker:
        yield "{}:{}".format(*broker.address)


def test_what_it_finds(servers: str) -> None:
    with ExternalCluster(servers) as cluster:
        assert cluster.node_ids == (1, 2)
        assert cluster.address_of(1) == servers
        assert cluster.bootstrap_servers == f"{servers},{cluster.address_of(2)}"
        assert cluster.client_options() == {
            "bootstrap_servers": cluster.bootstrap_servers,
            "security_protocol": "PLAINTEXT",
        }
        with pytest.raises(ValueError, match="there is no broker 3; the node ids are 1, 2"):
            cluster.address_of(3)


def test_the_first_address_that_answers_will_do(servers: str) -> None:
    (closed,) = pick_free_ports(1)
    with ExternalCluster(f"127.0.0.1:{closed}, {servers}") as cluster:
        assert cluster.node_ids == (1, 2)


def test_nobody_answers() -> None:
    (port,) = pick_free_ports(1)
    with pytest.raises(ClusterError, match=f"no Kafka broker answers at 127.0.0.1:{port} .*Connection refused"):
        ExternalCluster(f"127.0.0.1:{port}").open()


def test_unhealthy(servers: str) -> None:
    with (
        ExternalCluster(servers) as cluster,
        pytest.raises(UnhealthyClusterError, match=r"not healthy after 0\.1 s: broker 2"),
    ):
        cluster.wait_until_healthy(0.1)


def test_only_the_plaintext_listener_is_known(servers: str) -> None:
    with ExternalCluster(servers) as cluster, pytest.raises(ValueError, match="only the plaintext listener is known"):
        cluster.client_options("tls")


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        (lambda cluster: cluster.pause(1), "pause"),
        (lambda cluster: cluster.resume(1), "resume"),
        (lambda cluster: cluster.kill(1), "kill"),
        (lambda cluster: cluster.start(1), "start"),
        (lambda cluster: cluster.restart(1), "restart"),
        (lambda cluster: cluster.partition(1, "clients"), "cut off"),
        (lambda cluster: cluster.heal(1), "heal"),
        (lambda cluster: cluster.logs(1), "read the log of"),
    ],
)
def test_faults_are_refused(fault: Callable[[Cluster], None], name: str) -> None:
    cluster = ExternalCluster("127.0.0.1:9092")
    assert not cluster.supports_faults
    with pytest.raises(FaultUnsupportedError, match=f"cannot {name} a broker of 127.0.0.1:9092: .* not started here"):
        fault(cluster)


def test_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("POOLEDKAFKA_BOOTSTRAP", raising=False)
    assert ExternalCluster.from_environment() is None
    monkeypatch.setenv("POOLEDKAFKA_BOOTSTRAP", "")
    assert ExternalCluster.from_environment() is None
    monkeypatch.setenv("POOLEDKAFKA_BOOTSTRAP", "kafka.test:9092")
    assert repr(ExternalCluster.from_environment()) == "<ExternalCluster kafka.test:9092>"


def test_used_before_it_is_open_or_after_it_is_closed(servers: str) -> None:
    cluster = ExternalCluster(servers)
    with pytest.raises(ClusterError, match="the cluster is not open"):
        cluster.bootstrap_servers  # noqa: B018
    with cluster:
        cluster.open()
    cluster.close()
    with pytest.raises(ClusterError, match="the cluster is not open"):
        cluster.bootstrap_servers  # noqa: B018


@pytest.mark.parametrize("servers", ["", ":9092", "host:port", "a:1,,b:2"])
def test_addresses_that_are_none(servers: str) -> None:
    with pytest.raises(ValueError, match="expected host:port, several separated by commas"):
        ExternalCluster(servers)
