"""Fixtures over real Kafka brokers, for the tests of those who use this library, and for its own.

Loaded by pytest through an entry point wherever the package is installed; imports nothing of Docker or Kafka, and does
nothing, until a test asks for one of its fixtures.

=========================  =========  ====================================================================
fixture                    scope      what it is
=========================  =========  ====================================================================
kafka_cluster              session    a cluster in Docker, or the one that POOLEDKAFKA_BOOTSTRAP names
kafka_bootstrap_servers    session    its addresses, as clients take them
kafka_topic                function   the name of a new topic
kafka_topic_factory        function   makes more of them: ``kafka_topic_factory(partitions=6)``
kafka_fault_cluster        function   a cluster of the test module's own, whose brokers may be made to fail
=========================  =========  ====================================================================

Without Docker, tests that use them are skipped with a reason; with POOLEDKAFKA_REQUIRE_DOCKER=1 they fail. Under
pytest-xdist each worker has a cluster of its own.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from pooledkafka.testing import Cluster, KafkaCluster

_REQUIRE = "POOLEDKAFKA_REQUIRE_DOCKER"
_LOG_LINES = 20
_CLUSTERS = pytest.StashKey[list["Cluster"]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the command line's options."""
    group = parser.getgroup("pooledkafka", "Kafka brokers for tests")
    group.addoption(
        "--kafka-image",
        metavar="IMAGE",
        help="Docker image of the brokers, e.g. apache/kafka:4.1.0. Default: $KAFKA_IMAGE, else one built here.",
    )
    group.addoption(
        "--kafka-brokers",
        type=int,
        choices=(1, 3),
        help="Brokers of kafka_cluster. Default: the ini option kafka_brokers, else 1.",
    )
    parser.addini("kafka_brokers", "brokers of kafka_cluster, 1 or 3", default="1")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker."""
    config.addinivalue_line(
        "markers",
        "kafka_faults(brokers=3, listeners=('plaintext',), config=None): the test makes brokers fail; "
        "the arguments are those of KafkaCluster, for its kafka_fault_cluster.",
    )
    config.stash[_CLUSTERS] = []


@pytest.fixture(scope="session")
def kafka_cluster(pytestconfig: pytest.Config) -> Iterator[Cluster]:
    """A healthy Kafka cluster, shared by all tests of the session; do not make its brokers fail."""
    from pooledkafka.testing import ExternalCluster

    external = ExternalCluster.from_environment()
    if external is not None:
        with external:
            yield external
        return
    brokers = pytestconfig.getoption("--kafka-brokers") or int(pytestconfig.getini("kafka_brokers"))
    with _docker_cluster(pytestconfig, brokers=brokers) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def kafka_bootstrap_servers(kafka_cluster: Cluster) -> str:
    """The cluster's addresses, for ``bootstrap_servers=``."""
    return kafka_cluster.bootstrap_servers


@pytest.fixture
def kafka_topic_factory(kafka_cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Callable[..., str]]:
    """Makes topics with names of their own, ready for use; they are deleted after the test.

    ``kafka_topic_factory(partitions=1, replication_factor=None, config=None)`` returns the name. By default a topic
    has a replica on each broker, up to three.
    """
    from kafka.admin import KafkaAdminClient, NewTopic

    with ExitStack() as stack:
        admin: Any = None
        created: list[str] = []

        def create(partitions: int = 1, replication_factor: int | None = None, config: Any = None) -> str:
            nonlocal admin
            if admin is None:
                admin = KafkaAdminClient(**kafka_cluster.client_options())
                stack.callback(admin.close)
            name = _topic_name(request.node.name)
            replicas = min(3, len(kafka_cluster.node_ids)) if replication_factor is None else replication_factor
            topic = NewTopic(name, num_partitions=partitions, replication_factor=replicas, topic_configs=config or {})
            admin.create_topics([topic])
            created.append(name)
            # Created is not known everywhere: each broker learns of it by itself.
            kafka_cluster.wait_until_healthy()
            return name

        yield create
        if created:
            admin.delete_topics(created)


@pytest.fixture
def kafka_topic(kafka_topic_factory: Callable[..., str]) -> str:
    """The name of a new topic with one partition."""
    return kafka_topic_factory()


@pytest.fixture(scope="module")
def _kafka_fault_clusters(pytestconfig: pytest.Config) -> Iterator[_FaultClusters]:
    clusters = _FaultClusters(pytestconfig)
    try:
        yield clusters
    finally:
        clusters.close()


@pytest.fixture
def kafka_fault_cluster(
    request: pytest.FixtureRequest, _kafka_fault_clusters: _FaultClusters
) -> Iterator[KafkaCluster]:
    """A cluster whose brokers the test may pause, kill, restart and cut off; healthy when the test begins.

    Tests of one module that ask for the same cluster share it, one after the other. The marker ``kafka_faults`` says
    what it is like: ``@pytest.mark.kafka_faults(brokers=1)``. Default: three brokers.
    """
    marker = request.node.get_closest_marker("kafka_faults")
    yield _kafka_fault_clusters.healthy(marker.kwargs if marker is not None else {})
    _kafka_fault_clusters.recover()


class _FaultClusters:
    """Holds the cluster that the tests of a module make fail: one at a time, since each costs about 1 GB of memory."""

    def __init__(self, pytestconfig: pytest.Config) -> None:
        self._pytestconfig = pytestconfig
        self._stack = ExitStack()
        self._cluster: KafkaCluster | None = None
        self._wanted: dict[str, Any] = {}

    def healthy(self, wanted: dict[str, Any]) -> KafkaCluster:
        if self._cluster is None or wanted != self._wanted:
            self.close()
            self._cluster = self._stack.enter_context(_docker_cluster(self._pytestconfig, **{"brokers": 3, **wanted}))
            self._wanted = dict(wanted)
        return self._cluster

    def recover(self) -> None:
        """Undo the faults that a test left behind; a cluster that does not become healthy is not used again."""
        from pooledkafka.testing import ClusterError

        assert self._cluster is not None
        try:
            for node_id in self._cluster.node_ids:
                self._cluster.resume(node_id)
                self._cluster.start(node_id)
                self._cluster.heal(node_id)
            self._cluster.wait_until_healthy()
        except ClusterError:
            self.close()

    def close(self) -> None:
        self._cluster = None
        self._stack.close()


def _docker_cluster(pytestconfig: pytest.Config, **wanted: Any) -> Any:
    """A context manager of a new cluster; skips or fails the test where there can be none."""
    from contextlib import contextmanager

    from pooledkafka.testing import DockerUnavailableError, ImageNotFoundError, KafkaCluster, docker_unavailable_reason

    @contextmanager
    def opened() -> Iterator[KafkaCluster]:
        image = pytestconfig.getoption("--kafka-image")
        reason = docker_unavailable_reason(image)
        if reason is not None:
            _cannot(reason)
        cluster = KafkaCluster(image=image, **wanted)
        try:
            cluster.open()
        except (DockerUnavailableError, ImageNotFoundError) as error:
            _cannot(str(error))
        clusters = pytestconfig.stash[_CLUSTERS]
        clusters.append(cluster)
        try:
            yield cluster
        finally:
            clusters.remove(cluster)
            cluster.close()

    return opened()


def _cannot(reason: str) -> None:
    if os.environ.get(_REQUIRE) == "1":
        pytest.fail(f"{_REQUIRE}=1, but no Kafka cluster can be started: {reason}", pytrace=False)
    pytest.skip(f"no Kafka cluster can be started: {reason}")


def _topic_name(test: str) -> str:
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", test).strip("-")[:80]
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    return "-".join(part for part in (readable, worker, uuid.uuid4().hex[:12]) if part)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Any:
    """Show what the brokers said last beside a test that failed."""
    report = yield
    if report.failed and {"kafka_cluster", "kafka_fault_cluster"} & set(getattr(item, "fixturenames", ())):
        for cluster in item.config.stash[_CLUSTERS]:
            for node_id in cluster.node_ids:
                try:
                    lines = cluster.logs(node_id, tail=_LOG_LINES)
                except Exception as error:
                    lines = f"the log could not be read: {error!r}"
                report.sections.append((f"log of Kafka broker {node_id}", lines))
    return report
