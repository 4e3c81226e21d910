"""The metrics of an application under gunicorn, over all of its processes, against what these processes hold."""

from __future__ import annotations

import os
import signal
import sys
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from integration.clients import eventually
from integration.servers.checks import PARTITIONS
from integration.servers.running import Load, Server
from tests.contrib.prometheus.exposition import Scrape, parse

WORKERS = 3
CONFIGURATION = Path(__file__).parent / "servers" / "metrics_conf.py"


@pytest.fixture
def topic(kafka_topic_factory: Callable[..., str]) -> str:
    return kafka_topic_factory(partitions=PARTITIONS)


@contextmanager
def gunicorn(bootstrap_servers: str, topic: str, directory: Path, *, in_master: bool) -> Iterator[Server]:
    values = directory / "values"
    values.mkdir()
    command = [
        *(sys.executable, "-m", "gunicorn", "--bind", "127.0.0.1:{port}", "--workers", str(WORKERS), "--preload"),
        *("--worker-class", "gthread", "--threads", "4", "--config", str(CONFIGURATION)),
        "integration.servers.app:application",
    ]
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(values)}
    with Server(command, bootstrap_servers, topic, directory, in_master=in_master, environment=environment) as server:
        yield server


def scrape(server: Server) -> Scrape:
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=30) as answer:
        return parse(answer.read().decode())


def total(found: Scrape, name: str, **labels: str) -> float:
    """The sum of a metric over all series with these labels."""
    return sum(
        value for (of, having), value in found.items() if of == f"pooledkafka_{name}" and {*labels.items()} <= having
    )


@pytest.mark.parametrize("in_master", [False, True], ids=["lazy", "used in the master"])
def test_metrics_are_those_of_all_processes(
    kafka_bootstrap_servers: str, topic: str, tmp_path: Path, in_master: bool
) -> None:
    with gunicorn(kafka_bootstrap_servers, topic, tmp_path, in_master=in_master) as server:
        load = Load(server)
        eventually(lambda: len(load.pids) == WORKERS, 60, "every worker has sent")
        load.go_on(100)
        load.stop()

        def produced() -> float:
            return total(scrape(server), "produced_records_total", topic=topic)

        # What the master sends goes on; it writes down what is acknowledged.
        eventually(lambda: produced() >= len(load.acked), 30, "all records are counted")
        if not in_master:
            assert produced() == len(load.acked)

        def connections() -> tuple[float, int]:
            return total(scrape(server), "connections"), sum(map(Counter.total, server.sockets().values()))

        eventually(lambda: len(set(connections())) == 1, 30, "as many connections as the system knows in all processes")
        counted = total(scrape(server), "request_duration_seconds_count", api="Produce")
        before = produced()
        killed = min(server.workers())
        held = server.sockets()[killed].total()
        assert held > 0
        os.kill(killed, signal.SIGKILL)
        eventually(lambda: len(server.workers() - {killed}) == WORKERS, 30, "the killed worker is replaced")
        eventually(
            lambda: len(set(connections())) == 1, 30, "those of the killed one are gone, though it could not say so"
        )
        after = scrape(server)
        assert total(after, "produced_records_total", topic=topic) >= before, "its counters stay"
        assert total(after, "request_duration_seconds_count", api="Produce") >= counted

        last = Load(server)
        last.go_on(50)
        last.stop()
        everything = len(load.acked) + len(last.acked)
        eventually(lambda: produced() >= everything, 30, "all records are counted, whichever process has sent them")
        if not in_master:
            assert produced() == everything
        server.terminate()
