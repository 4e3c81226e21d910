"""Errors of the Kafka test bed. Every one says what happened, what was expected, and what to do."""

from __future__ import annotations


class ClusterError(Exception):
    """Base of all errors of `pooledkafka.testing`."""


class DockerUnavailableError(ClusterError):
    """The docker package is not installed, or no Docker daemon answers."""


class ImageNotFoundError(ClusterError):
    """The image is neither on this machine nor can it be pulled."""


class ImageBuildError(ClusterError):
    """The local Kafka image could not be built."""


class PortTakenError(ClusterError):
    """Another process listens on a port that a broker must have."""


class BrokerStartError(ClusterError):
    """A broker died while starting, or did not become ready in time. The message ends with its last log lines."""


class UnhealthyClusterError(ClusterError):
    """The cluster did not become healthy in time. The message says what was still missing."""


class FaultUnsupportedError(ClusterError):
    """The cluster was not started here, so its brokers cannot be paused, killed or cut off."""
