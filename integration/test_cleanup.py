"""However the process that uses a cluster ends, nothing of it is left; and nothing of another's is touched."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from kafka import KafkaConsumer, KafkaProducer

from integration.remains import RecordedReaper, remains_of, volumes_of, wait_until_gone
from pooledkafka.testing import KafkaCluster
from pooledkafka.testing import _deployment as deployment

# What may take at most so long after a SIGKILL.
REMOVAL_TIMEOUT_S = 10
ROOT = Path(__file__).parents[1]

# Tells its parent what it is about to make, and when it is made; then holds it until it is ended.
PROGRAM = """
import sys
from integration.remains import RecordedReaper
from pooledkafka.testing import KafkaCluster, _deployment

class AnnouncedReaper(RecordedReaper):
    made = []
    def __init__(self, label, directory):
        super().__init__(label, directory)
        print(label, directory, flush=True)

_deployment.Reaper = AnnouncedReaper
with KafkaCluster(listeners=["tls"]) as cluster:
    {then}
    print(cluster.bootstrap_servers, flush=True)
    sys.stdin.read()
"""

FORK = """
    import os
    if os.fork() == 0:
        cluster.close()  # of the fork: nothing to do
        sys.stdin.read()
        os._exit(0)
"""

TEST = """
from integration.remains import label_of

def test_that_never_ends(kafka_cluster, capsys):
    with capsys.disabled():
        print("\\n" + label_of(kafka_cluster), "-", flush=True)
        print(kafka_cluster.bootstrap_servers, flush=True)
    __import__("threading").Event().wait()
"""


@dataclass
class Owner:
    """A process that has a cluster."""

    process: subprocess.Popen[str]
    label: str
    directory: str

    def wait_until_open(self) -> str:
        """Wait until it says so, and return its bootstrap servers."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()


@contextmanager
def owner(*command: str) -> Iterator[Owner]:
    """Run Python with a cluster of its own; yield when the cluster is about to be made."""
    with subprocess.Popen(
        [sys.executable, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ) as process:
        try:
            assert process.stdout is not None
            announcement = next(line for line in process.stdout if line.startswith("pooledkafka.testing.run="))
            label, directory = announcement.split()
            yield Owner(process, label, directory)
        finally:
            process.kill()


def program(then: str = "pass") -> tuple[str, str]:
    return "-c", PROGRAM.format(then=then.strip())


def wait_for_a_container(label: str) -> None:
    deadline = time.monotonic() + 60
    while not any(remain.startswith("container") for remain in remains_of(label)):
        assert time.monotonic() < deadline, "no container was made"


def test_sigkill_while_the_cluster_is_open() -> None:
    with owner(*program()) as one:
        one.wait_until_open()
        volumes = volumes_of(one.label)
        assert len(remains_of(one.label, volumes)) > 3
        one.process.kill()
        wait_until_gone(one.label, volumes, REMOVAL_TIMEOUT_S)
    assert not Path(one.directory).exists()


def test_sigkill_while_the_cluster_starts() -> None:
    with owner(*program()) as one:
        wait_for_a_container(one.label)
        one.process.kill()
        wait_until_gone(one.label, [], REMOVAL_TIMEOUT_S)


def test_sigkill_of_a_process_whose_fork_lives_on() -> None:
    with owner(*program(FORK)) as one:
        one.wait_until_open()
        volumes = volumes_of(one.label)
        assert len(remains_of(one.label, volumes)) > 3
        one.process.kill()
        wait_until_gone(one.label, volumes, REMOVAL_TIMEOUT_S)


def test_sigkill_of_pytest(tmp_path: Path) -> None:
    (tmp_path / "test_never_ends.py").write_text(TEST)
    options = ("-p", "no:cacheprovider", "-c", os.devnull, "--rootdir", str(tmp_path))
    with owner("-m", "pytest", *options, str(tmp_path)) as one:
        one.wait_until_open()
        volumes = volumes_of(one.label)
        assert len(remains_of(one.label, volumes)) > 3
        one.process.kill()
        wait_until_gone(one.label, volumes, REMOVAL_TIMEOUT_S)


@pytest.mark.parametrize("opened", [True, False], ids=["while it is open", "while it starts"])
def test_ctrl_c(opened: bool) -> None:
    with owner(*program()) as one:
        if opened:
            one.wait_until_open()
        else:
            wait_for_a_container(one.label)
        volumes = volumes_of(one.label)
        os.killpg(one.process.pid, signal.SIGINT)
        one.process.wait(30)
        wait_until_gone(one.label, volumes, 0)
    assert one.process.returncode == -signal.SIGINT
    assert not Path(one.directory).exists()


def test_close_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    RecordedReaper.made = []
    monkeypatch.setattr(deployment, "Reaper", RecordedReaper)
    cluster = KafkaCluster(listeners=["tls"])
    cluster.open()
    (made,) = RecordedReaper.made
    volumes = volumes_of(made.label)
    assert len(made.remains()) > 4
    cluster.close()
    assert made.remains() == []
    wait_until_gone(made.label, volumes, 0)


def test_two_clusters_side_by_side_do_not_disturb_each_other() -> None:
    with owner(*program()) as other, KafkaCluster() as cluster:
        theirs = other.wait_until_open()
        assert theirs != cluster.bootstrap_servers
        send(theirs, b"theirs")
        send(cluster.bootstrap_servers, b"ours")
        assert read(theirs) == [b"theirs"]
        assert read(cluster.bootstrap_servers) == [b"ours"]

        other.process.kill()
        wait_until_gone(other.label, [], REMOVAL_TIMEOUT_S)
        cluster.wait_until_healthy(10)
        send(cluster.bootstrap_servers, b"ours again")
        assert read(cluster.bootstrap_servers) == [b"ours", b"ours again"]


def send(bootstrap_servers: str, value: bytes) -> None:
    with KafkaProducer(bootstrap_servers=bootstrap_servers) as producer:
        producer.send("topic", value).get(timeout=20)


def read(bootstrap_servers: str) -> list[bytes]:
    with KafkaConsumer(
        "topic", bootstrap_servers=bootstrap_servers, auto_offset_reset="earliest", consumer_timeout_ms=1_500
    ) as consumer:
        return [record.value for record in consumer]
