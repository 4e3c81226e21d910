"""Fixtures over real Kafka brokers, for tests: the pytest plugin of pooledkafka.

=========================  ========  ==================================================================================
fixture                    scope     what it is
=========================  ========  ==================================================================================
kafka_cluster              session   a cluster: embedded, in Docker or running already, as --kafka-backend says
kafka_bootstrap_servers    session   its addresses, for ``bootstrap_servers=``
kafka_topic                function  the name of a new topic
kafka_topic_factory        function  makes more of them: ``kafka_topic_factory(partitions=6)``
kafka_fault_cluster        function  a cluster of the test module's own, whose brokers may be made to fail
embedded_kafka             function  a new, empty cluster in this process, for staged faults
kafka_messages             function  what a Django project sends in the test; needs no cluster
=========================  ========  ==================================================================================

``--kafka-backend=embedded`` needs nothing but Python. ``docker`` is the truth, and the default; ``external`` is the
running cluster that $POOLEDKAFKA_BOOTSTRAP names, and the default where it names one.

Where no cluster can be started, tests that use them are skipped with the cause as reason; with
POOLEDKAFKA_REQUIRE_DOCKER=1 they fail. Under pytest-xdist each worker has clusters of its own.

pytest loads this module in every run, wherever pooledkafka is installed. So it lies outside the package, whose import
takes 0.2 s and would run before coverage is measured, and it imports the package when a fixture is used.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pooledkafka.contrib.django.test import Messages
    from pooledkafka.testing import Cluster, EmbeddedKafka
    from pooledkafka.testing._pytest_clusters import FaultClusters
    from pooledkafka.testing._pytest_topics import TopicFactory

_BROKERS = ("1", "3")
_BACKENDS = ("embedded", "docker", "external")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the command line and of the ini file."""
    group = parser.getgroup("pooledkafka", "Kafka brokers for tests")
    group.addoption(
        "--kafka-backend",
        choices=_BACKENDS,
        help="Where kafka_cluster runs: in this process, in Docker, or already, as $POOLEDKAFKA_BOOTSTRAP says. "
        "kafka_fault_cluster is embedded too, or in Docker. Default: the ini option kafka_backend, or external "
        "where $POOLEDKAFKA_BOOTSTRAP is set, or docker.",
    )
    group.addoption(
        "--kafka-image",
        metavar="IMAGE",
        help="Docker image of the brokers, such as apache/kafka:4.1.0. "
        "Default: $KAFKA_IMAGE, the ini option kafka_image, or one that is built on this machine.",
    )
    group.addoption(
        "--kafka-brokers",
        choices=_BROKERS,
        help="How many brokers kafka_cluster has. Default: the ini option kafka_brokers, or 1.",
    )
    parser.addini("kafka_backend", "Where kafka_cluster runs: embedded, docker or external.", default="")
    parser.addini("kafka_image", "Docker image of the brokers that the Kafka fixtures start.", default="")
    parser.addini("kafka_brokers", "How many brokers kafka_cluster has: 1 or 3.", default="1")


def pytest_configure(config: pytest.Config) -> None:
    """Register the marker, and refuse a wrong ini option at once instead of in each test."""
    config.addinivalue_line(
        "markers",
        "kafka_faults(brokers=3, **options): the test makes brokers fail. Every test that uses kafka_fault_cluster has "
        "this marker; write it to give the cluster other options of KafkaCluster (brokers, listeners, config ...).",
    )
    config.addinivalue_line(
        "markers",
        "embedded_kafka(brokers=3, **options): other options of EmbeddedKafka (listeners, config, broker_config ...) "
        "for the fixture embedded_kafka.",
    )
    if (backend := config.getini("kafka_backend")) not in ("", *_BACKENDS):
        raise pytest.UsageError(f"the ini option kafka_backend is {backend!r}; expected {', '.join(_BACKENDS)}")
    if (brokers := config.getini("kafka_brokers")) not in _BROKERS:
        raise pytest.UsageError(f"the ini option kafka_brokers is {brokers!r}; expected {' or '.join(_BROKERS)}")


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark what uses the fault cluster, so that `-m kafka_faults` selects it."""
    if "kafka_fault_cluster" in getattr(item, "fixturenames", ()) and not item.get_closest_marker("kafka_faults"):
        item.add_marker("kafka_faults")


# The old kind of wrapper: this module must load with any pytest that a user may have.
@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Add the last lines of the brokers' logs to the report of a test that failed."""
    outcome = yield
    if "pooledkafka.testing._pytest_clusters" not in sys.modules:
        return  # no fixture of ours was used so far
    from pooledkafka.testing._pytest_clusters import broker_logs

    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.failed:
        report.sections.extend(broker_logs(getattr(item, "funcargs", None) or {}))


@pytest.fixture(scope="session")
def kafka_cluster(pytestconfig: pytest.Config) -> Iterator[Cluster]:
    """A Kafka cluster for all tests of the session. Do not make its brokers fail: see kafka_fault_cluster."""
    from pooledkafka.testing._pytest_clusters import shared_cluster

    with shared_cluster(pytestconfig) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def kafka_bootstrap_servers(kafka_cluster: Cluster) -> str:
    """The addresses of kafka_cluster, for the `bootstrap_servers` of any Kafka client."""
    return kafka_cluster.bootstrap_servers


@pytest.fixture
def kafka_topic_factory(request: pytest.FixtureRequest) -> Iterator[TopicFactory]:
    """Makes topics: `kafka_topic_factory(partitions=1, replication_factor=None, config=None)` returns the name of one.

    Every name is new and says which test it is of. All brokers know the topic and its leaders already. It is made on
    kafka_fault_cluster if the test uses that, else on kafka_cluster; there it is deleted after the test.
    """
    from pooledkafka.testing._pytest_topics import TopicFactory

    faults = "kafka_fault_cluster" in request.fixturenames
    cluster = request.getfixturevalue("kafka_fault_cluster" if faults else "kafka_cluster")
    factory = TopicFactory(cluster, request.node.name)
    yield factory
    if not faults:  # that cluster goes with its topics, and may be unable to delete them now
        factory.delete_all()


@pytest.fixture
def kafka_topic(kafka_topic_factory: TopicFactory) -> str:
    """The name of a new topic with one partition. See kafka_topic_factory."""
    return kafka_topic_factory()


@pytest.fixture(scope="module")
def _kafka_fault_clusters(pytestconfig: pytest.Config) -> Iterator[FaultClusters]:
    from pooledkafka.testing._pytest_clusters import FaultClusters

    with FaultClusters(pytestconfig) as clusters:
        yield clusters


@pytest.fixture
def kafka_fault_cluster(request: pytest.FixtureRequest, _kafka_fault_clusters: FaultClusters) -> Iterator[Cluster]:
    """A cluster whose brokers the test may pause, kill, restart and cut off; healthy when the test begins.

    The tests of a module share it, one after the other. The marker kafka_faults chooses another than one of three
    brokers: `@pytest.mark.kafka_faults(brokers=1, listeners=["scram"])`. A module that alternates between several
    choices starts a cluster at every change.
    """
    with _kafka_fault_clusters.lend(request.node.get_closest_marker("kafka_faults")) as cluster:
        yield cluster


@pytest.fixture
def embedded_kafka(request: pytest.FixtureRequest) -> Iterator[EmbeddedKafka]:
    """A new, empty cluster in this process, of three brokers: real TCP on 127.0.0.1, any client, faults as code.

    The marker embedded_kafka chooses another: `@pytest.mark.embedded_kafka(brokers=1, listeners=["tls"])`.
    """
    from pooledkafka.testing._pytest_clusters import embedded

    with embedded(request.node.get_closest_marker("embedded_kafka")) as cluster:
        yield cluster


@pytest.fixture
def kafka_messages() -> Iterator[Messages]:
    """What the test sends by `pooledkafka.contrib.django`, captured in place of being sent; see its module `test`."""
    from pooledkafka.contrib.django.test import captured_messages

    with captured_messages() as messages:
        yield messages
