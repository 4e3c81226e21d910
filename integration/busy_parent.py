"""A program that forks while its threads use a pool in every way; run as ``python -m integration.busy_parent``.

Each child uses what it has inherited, and leaves by ``sys.exit`` or ``os._exit``, in turns. Writes its figures, as
JSON, and what was acknowledged in which process, for its caller to compare with the log.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import psutil
from kafka.errors import TopicAlreadyExistsError

from pooledkafka import ForkedClientError, Kafka, PoolClosedError

logging.basicConfig(level=logging.ERROR, format="LOG %(process)d %(levelname)s %(name)s %(message)s")

WATCHDOG_S = 60


class Parent:
    """What the threads of the parent do, again and again, until told to stop."""

    def __init__(self, kafka: Kafka, topic: str) -> None:
        self.kafka, self.topic = kafka, topic
        self.pool = kafka.connection_pool()
        self.other = kafka.connection_pool()  # connected and disconnected all the time
        self.producer = kafka.producer(connection_pool=self.pool)
        self.consumer = kafka.consumer(topic, group_id=f"parent-{os.getpid()}", connection_pool=self.pool)
        self.acked: list[str] = []  # appended to by any thread
        self.errors: list[str] = []
        self.over = threading.Event()
        self.rounds: dict[str, int] = {}  # each thread's own entry
        work = [self.send, self.send_many, self.poll, self.attach, self.connect, self.own, self.ask, self.look]
        self.threads = [threading.Thread(target=self.repeat, args=(each,), name=each.__name__) for each in work]

    def repeat(self, work: Callable[[int], None]) -> None:
        name, number = work.__name__, 0
        try:
            while not self.over.is_set():
                work(number)
                number += 1
                self.rounds[name] = number
        except BaseException as error:
            self.errors.append(f"{name}: {error!r}")

    def send(self, number: int) -> None:
        self.producer.send(self.topic, f"send-{number}".encode()).get(timeout=30)
        self.acked.append(f"send-{number}")

    def send_many(self, number: int) -> None:
        values = [f"many-{number}-{each}" for each in range(20)]
        self.producer.send_batch(self.topic, [{"value": value.encode()} for value in values]).get(timeout=30)
        self.acked.extend(values)

    def poll(self, number: int) -> None:
        self.consumer.poll(timeout_ms=20)

    def attach(self, number: int) -> None:
        with self.kafka.producer(connection_pool=self.pool, linger_ms=number % 3) as producer:
            producer.send(self.topic, f"attach-{number}".encode()).get(timeout=30)
            self.acked.append(f"attach-{number}")
        with self.kafka.consumer(self.topic, connection_pool=self.pool) as consumer:
            consumer.poll(timeout_ms=1)

    def connect(self, number: int) -> None:
        self.other.connect()
        self.other.disconnect()

    def own(self, number: int) -> None:
        with self.kafka.producer() as producer:
            producer.send(self.topic, f"own-{number}".encode()).get(timeout=30)
            self.acked.append(f"own-{number}")

    def ask(self, number: int) -> None:
        with self.kafka.admin(connection_pool=self.pool) as admin:
            admin.list_topics()
            try:
                admin.create_topics({self.topic: {"num_partitions": 1, "replication_factor": 1}})
            except TopicAlreadyExistsError:
                pass

    def look(self, number: int) -> None:
        repr(self.pool), self.pool.stats()
        heard: list[Any] = []
        self.pool.add_listener(heard.append)
        time.sleep(0.001)
        self.pool.remove_listener(heard.append)


def use(parent: Parent, number: int) -> dict[str, Any]:
    """What a child does with what it has inherited."""
    held = connections()
    values = [f"child-{number}-{each}" for each in range(3)]
    for value in values[:2]:
        parent.producer.send(parent.topic, value.encode()).get(timeout=30)
    with parent.kafka.producer(connection_pool=parent.pool) as own:
        own.send(parent.topic, values[2].encode()).get(timeout=30)
    with parent.kafka.consumer(parent.topic, connection_pool=parent.pool, auto_offset_reset="earliest") as consumer:
        while not consumer.poll(timeout_ms=1_000):
            pass
    parent.kafka.admin(connection_pool=parent.pool).list_topics()
    try:
        parent.consumer.poll()
    except ForkedClientError:
        pass
    try:
        parent.other.connect()  # whatever the parent was doing with it
        parent.other.disconnect()
    except PoolClosedError:
        pass
    most = max(sum(lanes.values()) for lanes in parent.pool.stats().connections.values())
    if number % 3 == 0:
        parent.pool.disconnect()
    return {"acked": values, "inherited": held, "most": most}


def connections() -> list[int]:
    """The connections to brokers that this process has open, by their local ports."""
    found = psutil.Process().net_connections("tcp")
    return [
        each.laddr.port for each in found if each.raddr and each.raddr.port in PORTS and each.status == "ESTABLISHED"
    ]


def wait_for(pid: int) -> int:
    """The status with which a child has ended; -1 where it had to be killed."""
    deadline = time.monotonic() + WATCHDOG_S
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.005)
    os.kill(pid, signal.SIGABRT)  # with a traceback, for who looks into it
    os.waitpid(pid, 0)
    return -1


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("bootstrap_servers")
    arguments.add_argument("topic")
    arguments.add_argument("--forks", type=int, default=50)
    given = arguments.parse_args()
    PORTS.update(int(address.rpartition(":")[2]) for address in given.bootstrap_servers.split(","))

    faulthandler.enable()
    parent = Parent(Kafka(bootstrap_servers=given.bootstrap_servers, client_id="busy"), given.topic)
    parent.send(-1)
    for thread in parent.threads:
        thread.start()
    while len(parent.rounds) < len(parent.threads) and not parent.errors:
        time.sleep(0.01)
    lasting = _lasting(parent)

    statuses, children = [], []
    for number in range(given.forks):
        read, write = os.pipe()
        pid = os.fork()
        if not pid:
            os.close(read)
            with os.fdopen(write, "w") as pipe:
                json.dump(use(parent, number), pipe)
            if number % 2:
                os._exit(0)
            sys.exit(0)
        os.close(write)
        with os.fdopen(read) as pipe:
            statuses.append(wait_for(pid))
            told = pipe.read()
            if told:
                children.append(json.loads(told))
    parent.over.set()
    for thread in parent.threads:
        thread.join(60)
        if thread.is_alive():
            parent.errors.append(f"{thread.name} hangs")
    kept = [each.connected for each, _ in lasting]
    parent.consumer.close()
    parent.pool.disconnect()
    figures = {
        "statuses": statuses,
        "errors": parent.errors,
        "rounds": parent.rounds,
        "parent": parent.acked,
        "children": children,
        "kept": kept,
        "lasting": [port for _, port in lasting],
        "left": connections(),
    }
    json.dump(figures, sys.stdout)


def _lasting(parent: Parent) -> list[tuple[Any, int]]:
    """The parent's connections that nothing but a fault would end, and their local ports."""
    manager = parent.pool.client._manager
    return [
        (connection, connection.transport._sock.getsockname()[1])
        for key, connection in manager.connections()
        if connection.connected and key.lane.value in ("control", "produce", "fetch")
    ]


PORTS: set[int] = set()

if __name__ == "__main__":
    main()
