"""Kafka for tests: real Apache Kafka in Docker, or a cluster in this process that stages faults on purpose.

    with KafkaCluster(brokers=3) as cluster:  # or EmbeddedKafka(brokers=3)
        producer = KafkaProducer(**cluster.client_options())

`KafkaCluster` needs the docker extra (`pip install 'pooledkafka[docker]'`) and a Docker daemon; importing it needs
neither. `EmbeddedKafka` needs nothing, but for TLS the embedded extra.
"""

from __future__ import annotations

from ._availability import docker_unavailable_reason
from ._cluster import Cluster, KafkaCluster
from ._embedded.cluster import EmbeddedKafka
from ._embedded.faults import Corrupt, Delay, Drop, Error, Fault, Half, Hold, Never, Throttle
from ._embedded.recorder import ConnectionRecord, Exchange
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
    "ConnectionRecord",
    "Corrupt",
    "Delay",
    "DockerUnavailableError",
    "Drop",
    "EmbeddedKafka",
    "Error",
    "Exchange",
    "ExternalCluster",
    "Fault",
    "FaultUnsupportedError",
    "Half",
    "Hold",
    "ImageBuildError",
    "ImageNotFoundError",
    "KafkaCluster",
    "Listener",
    "Never",
    "PortTakenError",
    "Throttle",
    "UnhealthyClusterError",
    "build_image",
    "default_image",
    "docker_unavailable_reason",
]
