"""An application with one pool under uWSGI, which tells Python of its forks only where it is asked to."""

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

WORKERS = 3

Start = Callable[..., Server]


@pytest.fixture
def topic(kafka_topic_factory: Callable[..., str]) -> str:
    return kafka_topic_factory(partitions=PARTITIONS)


@pytest.fixture
def uwsgi(kafka_bootstrap_servers: str, topic: str, tmp_path: Path) -> Start:
    def start(*options: str, in_master: bool) -> Server:
        command = [
            *(str(Path(sys.executable).with_name("uwsgi")), "--http-socket", "127.0.0.1:{port}", "--need-app"),
            *("--master", "--die-on-term", "--disable-logging", "--processes", str(WORKERS), *options),
            *("--module", "integration.servers.app:application"),
        ]
        return Server(command, kafka_bootstrap_servers, topic, tmp_path, in_master=in_master)

    return start


@pytest.mark.parametrize(
    ("options", "in_master"),
    [
        pytest.param(["--py-call-uwsgi-fork-hooks", "--threads", "4"], True, id="connected-in-the-master"),
        pytest.param(["--lazy-apps", "--enable-threads"], True, id="lazy-apps"),
        pytest.param([], False, id="connected-in-the-workers"),
    ],
)
def test_an_application(
    uwsgi: Start,
    options: list[str],
    in_master: bool,
    kafka_bootstrap_servers: str,
    topic: str,
    record_property: Callable[[str, Any], None],
) -> None:
    preloaded = in_master and "--lazy-apps" not in options
    with uwsgi(*options, in_master=in_master) as server:
        load = Load(server)
        load.go_on(100)
        check_workers(server, WORKERS, in_master=preloaded)

        killed: set[int] = set()
        for _ in range(3):
            killed.add(min(server.workers() - killed))
            os.kill(max(killed), signal.SIGKILL)
            eventually(lambda: len(server.workers() - killed) == WORKERS, 30, "the killed worker is replaced")
            load.go_on(30)
        server.wait_for_what_lingered()

        before, errors = server.workers(), len(load.errors)
        server.send(signal.SIGHUP)
        eventually(lambda: not before & server.workers() and len(server.workers()) == WORKERS, 60, "all are replaced")
        load.go_on(100)
        assert len(load.errors) == errors, f"a graceful reload fails no request: {load.errors}"
        check_workers(server, WORKERS, in_master=preloaded)
        most = settled_connections(server)
        server.wait_for_what_lingered()
        server.terminate()
        load.stop()
        figures = check_log(kafka_bootstrap_servers, topic, server, [load])
        expected = ("killed by signal 9", "you are running uWSGI as root")
        complaints = [line for line in server.complaints() if not any(words in line for words in expected)]
        assert not complaints, "\n".join(complaints)
    for name, value in figures.items():
        record_property(name, value)
    record_property("workers that sent", len(load.pids))
    record_property("most connections of a process to a broker", most)


def test_a_pool_that_is_connected_in_a_master_that_forks_unheard_is_warned_of(uwsgi: Start) -> None:
    server = uwsgi("--enable-threads", in_master=True)
    try:
        eventually(lambda: "py-call-uwsgi-fork-hooks = true" in server.log(), 60, "the warning is in the log")
    finally:
        server.kill()
