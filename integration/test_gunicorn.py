"""An application with one pool under gunicorn, which loads it and forks its workers."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from integration.clients import eventually
from integration.servers.checks import PARTITIONS, check_log, check_workers, settled_connections
from integration.servers.running import Load, Server

WORKERS = 4

Start = Callable[..., Server]


@pytest.fixture
def topic(kafka_topic_factory: Callable[..., str]) -> str:
    return kafka_topic_factory(partitions=PARTITIONS)


@pytest.fixture
def gunicorn(kafka_bootstrap_servers: str, topic: str, tmp_path: Path) -> Start:
    def start(*options: str, in_master: bool) -> Server:
        command = [
            *(sys.executable, "-m", "gunicorn", "--bind", "127.0.0.1:{port}", "--workers", str(WORKERS)),
            *("--graceful-timeout", "20", *options, "integration.servers.app:application"),
        ]
        return Server(command, kafka_bootstrap_servers, topic, tmp_path, in_master=in_master)

    return start


def report(record_property: Callable[[str, Any], None], **figures: Any) -> None:
    for name, value in figures.items():
        record_property(name.replace("_", " "), value)


@pytest.mark.parametrize("workers", [["sync"], ["gthread", "--threads", "8"]], ids=["sync", "gthread"])
def test_a_preloaded_application_whose_master_uses_the_pool(
    gunicorn: Start,
    workers: list[str],
    kafka_bootstrap_servers: str,
    topic: str,
    record_property: Callable[[str, Any], None],
) -> None:
    with gunicorn("--preload", "--worker-class", *workers, in_master=True) as server:
        load = Load(server)
        load.go_on(100)
        check_workers(server, WORKERS, in_master=True)

        first = server.workers()
        killed = min(first)
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: len(server.workers() - {killed}) == WORKERS, 30, "the killed worker is replaced")
        load.go_on(100)
        errors_of_kill = len(load.errors)

        before = server.workers()
        server.send(signal.SIGHUP)
        eventually(lambda: not before & server.workers() and len(server.workers()) == WORKERS, 60, "all are replaced")
        load.go_on(100)
        assert len(load.errors) == errors_of_kill, f"a graceful reload fails no request: {load.errors}"
        check_workers(server, WORKERS, in_master=True)
        most = settled_connections(server)
        server.wait_for_what_lingered()
        load.stop()
        last = Load(server)
        last.go_on(20)
        server.terminate()
        last.stop()
        figures = check_log(kafka_bootstrap_servers, topic, server, [load, last])
        complaints = [line for line in server.complaints() if f"(pid:{killed}) was sent SIGKILL" not in line]
        assert not complaints, "\n".join(complaints)
    forks = len(load.pids | last.pids)
    report(record_property, **figures, workers_that_sent=forks, most_connections_of_a_process_to_a_broker=most)


def test_workers_that_are_recycled(
    gunicorn: Start, kafka_bootstrap_servers: str, topic: str, record_property: Callable[[str, Any], None]
) -> None:
    recycle = ("--max-requests", "30", "--max-requests-jitter", "10")
    with gunicorn("--preload", "--worker-class", "gthread", "--threads", "4", *recycle, in_master=True) as server:
        load = Load(server)
        eventually(lambda: len(load.pids) >= 3 * WORKERS, 90, "every worker was replaced twice")
        load.stop()
        assert load.errors == []
        most = settled_connections(server)
        server.terminate()
        figures = check_log(kafka_bootstrap_servers, topic, server, [load])
        assert not server.complaints(), "\n".join(server.complaints())
    forks = len(load.pids)
    report(record_property, **figures, workers_that_sent=forks, most_connections_of_a_process_to_a_broker=most)
