"""A pool in the tasks of a Celery worker, whose processes are forked and end by ``os._exit``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from kafka.structs import TopicPartition

from integration.clients import eventually
from integration.logs import plain_log

ROOT = Path(__file__).parent.parent
TASKS = 200


@pytest.mark.parametrize("in_master", [False, True], ids=["made at import", "in use at import"])
def test_every_task_sends_its_record_once_also_what_lingers_at_the_end(
    in_master: bool, kafka_bootstrap_servers: str, kafka_topic: str, tmp_path: Path, record_property: Any
) -> None:
    queue = str(tmp_path / "queue")
    os.mkdir(queue)
    environment = {
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
        "APP_BOOTSTRAP": kafka_bootstrap_servers,
        "APP_TOPIC": kafka_topic,
        "APP_QUEUE": queue,
        "APP_MASTER": "1" if in_master else "",
    }
    command = [sys.executable, "-m", "celery", "-A", "integration.servers.celery_app", "worker", "--concurrency", "4"]
    command += ["--loglevel", "INFO", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    log = tmp_path / "worker.log"
    partition = TopicPartition(kafka_topic, 0)

    def records() -> list[list[str]]:
        (entries,) = plain_log(kafka_bootstrap_servers, [partition]).values()
        return [entry[3].decode().split("-") for entry in entries]

    with log.open("wb") as said:
        worker = subprocess.Popen(
            command, cwd=tmp_path, env={**os.environ, **environment}, stdout=said, stderr=subprocess.STDOUT
        )
    try:
        asking = Celery("asking", broker="filesystem://")
        asking.conf.broker_transport_options = {"data_folder_in": queue, "data_folder_out": queue}
        asking.conf.broker_transport_options["control_folder"] = queue
        for number in range(TASKS):
            asking.send_task("tell", [f"now-{number}"])
        for number in range(8):
            asking.send_task("tell_some_time", [f"later-{number}"])
        eventually(lambda: log.read_text().count(" succeeded in ") == TASKS + 8, 90, "every task is done")
        now = records()
        assert {kind for kind, *_ in now} == {"now"}, "the others wait for more to come"
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(30) == 0, log.read_text()
    finally:
        worker.kill()
        worker.wait()
    found = Counter((kind, number) for kind, number, _ in records())
    wanted = [("now", str(number)) for number in range(TASKS)] + [("later", str(number)) for number in range(8)]
    assert found == Counter(wanted), "each once"
    record_property("processes that sent", len({pid for *_, pid in now}))
