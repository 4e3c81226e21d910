"""The clusters behind the pytest fixtures: opened and lent, or the reason why not."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, NoReturn

import pytest

from .._logging import get_logger
from ._cluster import Cluster, KafkaCluster
from ._embedded.cluster import EmbeddedKafka
from ._errors import (
    ClusterError,
    DockerUnavailableError,
    ImageBuildError,
    ImageNotFoundError,
    UnhealthyClusterError,
)
from ._external import ExternalCluster
from ._pytest_topics import TopicFactory

_REQUIRE_DOCKER = "POOLEDKAFKA_REQUIRE_DOCKER"
_LOG_LINES = 40

_log = get_logger(__name__)


@contextmanager
def shared_cluster(config: pytest.Config) -> Iterator[Cluster]:
    """The cluster of the session, where the options or the environment say that it runs."""
    backend = _backend(config)
    brokers = int(config.getoption("--kafka-brokers") or config.getini("kafka_brokers"))
    cluster: Cluster | None = None
    if backend in ("", "external"):
        try:
            cluster = ExternalCluster.from_environment()
        except ValueError as error:
            pytest.fail(f"POOLEDKAFKA_BOOTSTRAP: {error}", pytrace=False)
        if cluster is None and backend:
            pytest.fail(
                "the Kafka backend is external, but no cluster is named; set POOLEDKAFKA_BOOTSTRAP=host:port",
                pytrace=False,
            )
    if cluster is None:
        cluster = EmbeddedKafka(brokers) if backend == "embedded" else KafkaCluster(brokers, image=_image(config))
    _open(cluster)
    try:
        yield cluster
    finally:
        cluster.close()


@contextmanager
def embedded(marker: pytest.Mark | None) -> Iterator[EmbeddedKafka]:
    """A new embedded cluster with the options in the marker."""
    options = _options_in(marker)
    try:
        cluster = EmbeddedKafka(**options)
    except (TypeError, ValueError) as error:
        pytest.fail(f"the marker embedded_kafka has wrong options: {error}", pytrace=False)
    _open(cluster)
    try:
        yield cluster
    finally:
        cluster.close()


class FaultClusters:
    """Lends the tests of one module a cluster to make fail. For one thread.

    It keeps one at a time: the last one, for the next test that wants the same. A context manager that closes it.
    """

    def __init__(self, config: pytest.Config) -> None:
        """Nothing is started yet."""
        self._config = config
        self._kept: Cluster | None = None
        self._kept_options: Mapping[str, Any] = {}

    def __enter__(self) -> FaultClusters:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close()

    @contextmanager
    def lend(self, marker: pytest.Mark | None) -> Iterator[Cluster]:
        """A healthy cluster with the options in the marker; afterwards undo what was done to its brokers."""
        options: dict[str, Any] = {"brokers": 3}
        if _backend(self._config) != "embedded":
            options["image"] = _image(self._config)
        options.update(_options_in(marker))
        if self._kept is None or options != self._kept_options or not self._has_recovered(self._kept):
            self._close()
            self._kept, self._kept_options = self._start(options), options
        cluster = self._kept
        try:
            yield cluster
        finally:
            cluster.reset_faults()

    def _start(self, options: dict[str, Any]) -> Cluster:
        try:
            embedded = _backend(self._config) == "embedded"
            cluster: Cluster = EmbeddedKafka(**options) if embedded else KafkaCluster(**options)
        except (TypeError, ValueError) as error:
            pytest.fail(f"the marker kafka_faults has wrong options: {error}", pytrace=False)
        _open(cluster)
        return cluster

    def _has_recovered(self, cluster: Cluster) -> bool:
        try:
            cluster.wait_until_healthy()
        except UnhealthyClusterError as error:
            _log.warning("cluster.replaced", error=str(error))
            return False
        return True

    def _close(self) -> None:
        if self._kept is not None:
            cluster, self._kept = self._kept, None
            cluster.close()


def broker_logs(fixtures: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Title and text of a report section for each broker behind the values of a test's fixtures."""
    values = [value.cluster if isinstance(value, TopicFactory) else value for value in fixtures.values()]
    for cluster in {id(value): value for value in values if isinstance(value, (KafkaCluster, EmbeddedKafka))}.values():
        for node_id in cluster.node_ids:
            with suppress(ClusterError):  # it is closed already, or Docker is gone: nothing to show
                yield f"last lines of Kafka broker {node_id} of {cluster!r}", cluster.logs(node_id, tail=_LOG_LINES)


def _backend(config: pytest.Config) -> str:
    return str(config.getoption("--kafka-backend") or config.getini("kafka_backend"))


def _options_in(marker: pytest.Mark | None) -> dict[str, Any]:
    if marker is None:
        return {}
    if marker.args:
        pytest.fail(f"the marker {marker.name} has {marker.args!r}; it takes only keyword arguments", pytrace=False)
    return dict(marker.kwargs)


def _image(config: pytest.Config) -> str | None:
    image = config.getoption("--kafka-image") or os.environ.get("KAFKA_IMAGE") or config.getini("kafka_image")
    return str(image) if image else None


def _open(cluster: Cluster) -> None:
    """Open it; skip the test where this machine cannot have it, and fail it where it ought to."""
    try:
        cluster.open()
    except (DockerUnavailableError, ImageNotFoundError, ImageBuildError) as error:
        _unavailable(error)
    except ClusterError as error:
        pytest.fail(f"{cluster!r} could not be opened: {error}", pytrace=False)


def _unavailable(error: ClusterError) -> NoReturn:
    if os.environ.get(_REQUIRE_DOCKER) == "1":
        pytest.fail(f"{_REQUIRE_DOCKER}=1, but no Kafka cluster can be started: {error}", pytrace=False)
    pytest.skip(f"no Kafka cluster can be started: {error}")
