"""Real Apache Kafka for tests, in Docker.

    with KafkaCluster(brokers=3) as cluster:
        producer = KafkaProducer(**cluster.client_options())

Needs the docker extra (`pip install 'pooledkafka[docker]'`) and a Docker daemon; importing it needs neither.
"""

from __future__ import annotations

from ._availability import docker_unavailable_reason
from ._cluster import Cluster, KafkaCluster
from ._errors import (
    BrokerStartError,
    ClusterError,
    DockerUnavailableError,
    FaultUnsupportedError,
    ImageBuildError,
    ImageNotFoundError,
    PortTakenError,
    UnhealthyClusterError,
)
from ._external import ExternalCluster
from ._image import build_image, default_image
from ._listeners import Listener

__all__ = [
    "BrokerStartError",
    "Cluster",
    "ClusterError",
    "DockerUnavailableError",
    "ExternalCluster",
    "FaultUnsupportedError",
    "ImageBuildError",
    "ImageNotFoundError",
    "KafkaCluster",
    "Listener",
    "PortTakenError",
    "UnhealthyClusterError",
    "build_image",
    "default_image",
    "docker_unavailable_reason",
]
