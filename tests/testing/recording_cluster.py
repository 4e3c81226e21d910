"""A KafkaCluster that starts nothing, and writes down what is asked of it."""

from __future__ import annotations

from typing import Any

import pytest

from pooledkafka.testing import ClusterError, KafkaCluster, UnhealthyClusterError, _pytest_clusters


class RecordingCluster(KafkaCluster):
    """Takes and checks the options of the real one."""

    made: list[RecordingCluster]

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.options = {**({"brokers": args[0]} if args else {}), **options}
        self.calls: list[str] = []
        self.healthy = True
        self.made.append(self)

    @classmethod
    def install(cls, monkeypatch: pytest.MonkeyPatch) -> list[RecordingCluster]:
        """Have the plugin use it; return the list of those that it makes."""
        cls.made = []
        monkeypatch.setattr(_pytest_clusters, "KafkaCluster", cls)
        return cls.made

    def open(self) -> None:
        self.calls.append("open")

    def close(self) -> None:
        self.calls.append("close")

    def address_of(self, node_id: int) -> str:
        return f"127.0.0.1:{node_id}"

    def wait_until_healthy(self, timeout_s: float = 60.0) -> None:
        self.calls.append("healthy?")
        if not self.healthy:
            raise UnhealthyClusterError("broker 2: no answer")

    def logs(self, node_id: int, tail: int = 50) -> str:
        return f"broker {node_id} says this in at most {tail} lines"

    def kill(self, node_id: int) -> None:
        self.calls.append(f"kill {node_id}")

    def resume(self, node_id: int) -> None:
        self.calls.append(f"resume {node_id}")
        raise ClusterError("as Docker does with what is not paused")

    def start(self, node_id: int) -> None:
        self.calls.append(f"start {node_id}")

    def heal(self, node_id: int) -> None:
        self.calls.append(f"heal {node_id}")
