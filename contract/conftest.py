"""The two clusters of the suite, with the same options: what holds on real Kafka must hold on the embedded one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.lab import Lab
from pooledkafka.testing import (
    Cluster,
    DockerUnavailableError,
    EmbeddedKafka,
    ImageBuildError,
    ImageNotFoundError,
    KafkaCluster,
)

BACKENDS = ("embedded", "docker")
CONFIG = {"broker.session.timeout.ms": "6000", "group.min.session.timeout.ms": "500"}
LISTENERS = ("plaintext", "sasl_plain")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test on both clusters, or on that of --kafka-backend."""
    if "cluster" in metafunc.fixturenames:
        chosen = metafunc.config.getoption("--kafka-backend")
        backends = [backend for backend in BACKENDS if chosen in (None, backend)]
        metafunc.parametrize("cluster", backends, indirect=True, scope="package")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the tests that restart brokers come last on each cluster."""
    ours = [(index, item) for index, item in enumerate(items) if item.path.parent == Path(__file__).parent]

    def place(item: pytest.Item) -> tuple[bool, bool]:
        backend = getattr(item, "callspec").params.get("cluster", "")  # noqa: B009 - pytest does not declare it
        return backend == "docker", "faults" in getattr(item, "fixturenames", ())

    for (index, _), item in zip(ours, sorted((item for _, item in ours), key=place), strict=True):
        items[index] = item


@pytest.fixture(scope="package")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Three brokers: embedded, or real ones in Docker."""
    cluster: Cluster
    if request.param == "embedded":
        cluster = EmbeddedKafka(brokers=3, listeners=LISTENERS, config=CONFIG)
    else:
        cluster = KafkaCluster(brokers=3, listeners=LISTENERS, config=CONFIG)
    try:
        cluster.open()
    except (DockerUnavailableError, ImageNotFoundError, ImageBuildError) as error:
        if os.environ.get("POOLEDKAFKA_REQUIRE_DOCKER") == "1":
            pytest.fail(f"POOLEDKAFKA_REQUIRE_DOCKER=1, but no Kafka cluster can be started: {error}", pytrace=False)
        pytest.skip(f"no Kafka cluster can be started: {error}")
    yield cluster
    cluster.close()


@pytest.fixture
def lab(cluster: Cluster, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """The test's use of the cluster."""
    lab = Lab(cluster, request.node.name)
    yield lab
    lab.close()


@pytest.fixture
def faults(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster, for a test that restarts its brokers; healthy again afterwards."""
    yield cluster
    for node_id in cluster.node_ids:
        cluster.start(node_id)
        cluster.resume(node_id)
        cluster.heal(node_id)
    cluster.wait_until_healthy()
