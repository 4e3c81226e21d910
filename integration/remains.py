"""What a cluster has left on this machine."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path
from typing import Any

import docker

from pooledkafka.testing._engine import RUN_LABEL
from pooledkafka.testing._reaper import Reaper


class RecordedReaper(Reaper):
    """Remembers every cluster that was made, even those whose `open()` failed."""

    made: list[RecordedReaper]

    def __init__(self, label: str, directory: str) -> None:
        super().__init__(label, directory)
        self.label = label
        self.directory = directory
        self.made.append(self)

    def remains(self) -> list[str]:
        """All that the cluster made and that is still there."""
        reaper = [f"reaper {self._process.pid}"] if self._process.poll() is None else []
        directory = [self.directory] if Path(self.directory).exists() else []
        return remains_of(self.label) + reaper + directory


def remains_of(label: str, volumes: list[str] | None = None) -> list[str]:
    """The containers and networks with the label, and which of the volumes still exist."""
    with closing(docker.from_env()) as client:
        containers = client.api.containers(all=True, filters={"label": label})
        networks = client.api.networks(filters={"label": label})
        existing = {volume["Name"] for volume in client.api.volumes()["Volumes"] or []}
    return (
        [f"container {container['Names']}" for container in containers]
        + [f"network {network['Name']}" for network in networks]
        + [f"volume {name}" for name in volumes or [] if name in existing]
    )


def volumes_of(label: str) -> list[str]:
    """The volumes of the containers with the label."""
    with closing(docker.from_env()) as client:
        return [
            mount["Name"]
            for container in client.api.containers(all=True, filters={"label": label})
            for mount in container["Mounts"]
            if mount["Type"] == "volume"
        ]


def wait_until_gone(label: str, volumes: list[str], timeout_s: float) -> None:
    """Fail unless the containers and networks with the label and the volumes are gone within `timeout_s`."""
    deadline = time.monotonic() + timeout_s
    while remains := remains_of(label, volumes):
        assert time.monotonic() < deadline, f"still there after {timeout_s:g} s: {remains}"
        time.sleep(0.1)


def label_of(cluster: Any) -> str:
    """The label of an open KafkaCluster."""
    return f"{RUN_LABEL}={cluster._deployment().id}"
