"""``make demo`` does what it says, on the session's brokers and with fewer clients."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from kafka import KafkaAdminClient

DEMO = Path(__file__).parent.parent / "examples" / "demo.py"


def run(bootstrap_servers: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(DEMO), *arguments],
        env={**os.environ, "BOOTSTRAP": bootstrap_servers},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )


def test_every_group_gets_everything_over_fewer_connections(kafka_bootstrap_servers: str) -> None:
    done = run(kafka_bootstrap_servers, "--consumers", "12", "--producers", "2", "--records", "120", "--rate", "60")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"using the Kafka cluster at {kafka_bootstrap_servers}" in done.stdout
    assert "12 of 12 consumers have their partitions" in done.stdout
    assert "12 of 12 groups received each of the 120 records sent exactly once" in done.stdout
    pooled, apart = map(int, re.findall(r"connections to brokers[^\d]+(\d+)[^\d]+(\d+)", done.stdout)[0])
    assert 0 < pooled <= 4 * 3, "four to each of three brokers"
    assert apart > pooled
    admin = KafkaAdminClient(bootstrap_servers=kafka_bootstrap_servers)
    assert [topic for topic in admin.list_topics() if topic.startswith("pooledkafka-demo")] == []
    admin.close()


def test_a_cluster_that_is_not_there_is_said_to_be_missing() -> None:
    done = run("127.0.0.1:1", "--consumers", "1")
    assert done.returncode == 2
    assert "the demo failed" in done.stderr
    assert "127.0.0.1:1" in done.stderr
