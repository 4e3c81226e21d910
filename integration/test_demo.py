"""``make demo`` does what it says, on the session's brokers or embedded ones, and with fewer clients."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from kafka import KafkaAdminClient

DEMO = Path(__file__).parent.parent / "examples" / "demo.py"


def run(bootstrap_servers: str, *arguments: str, backend: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(DEMO), *arguments],
        env={**os.environ, "BOOTSTRAP": bootstrap_servers, "BACKEND": backend},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


@pytest.mark.parametrize("embedded", [False, True], ids=["kafka", "embedded"])
def test_every_group_gets_everything_over_fewer_connections(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, embedded: bool
) -> None:
    if embedded:
        monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere")
        bootstrap, used = "", "three embedded brokers, in this process are ready"
    else:
        bootstrap = request.getfixturevalue("kafka_bootstrap_servers")
        used = f"using the Kafka cluster at {bootstrap}"
    done = run(bootstrap, "--consumers", "12", "--producers", "2", "--records", "120", "--rate", "60")
    assert done.returncode == 0, done.stdout + done.stderr
    assert used in done.stdout
    assert "12 of 12 consumers have their partitions" in done.stdout
    assert "12 of 12 groups received each of the 120 records sent exactly once" in done.stdout
    pooled, apart = map(int, re.findall(r"connections to brokers[^\d]+(\d+)[^\d]+(\d+)", done.stdout)[0])
    assert 0 < pooled <= 4 * 3, "four to each of three brokers"
    assert apart > pooled
    if embedded:
        return  # it is gone with its topics
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    assert [topic for topic in admin.list_topics() if topic.startswith("pooledkafka-demo")] == []
    assert [group for group in admin.list_groups() if group["group_id"].startswith("pooledkafka-demo")] == []
    admin.close()


def test_a_cluster_that_is_not_there_is_said_to_be_missing() -> None:
    done = run("127.0.0.1:1", "--consumers", "1")
    assert done.returncode == 1
    assert "127.0.0.1:1" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_backend_that_there_is_not_is_refused() -> None:
    done = run("", backend="smoke")
    assert done.returncode == 2
    assert "BACKEND is 'smoke'; expected embedded or docker" in done.stderr
