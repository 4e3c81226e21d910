"""A WSGI application whose pool, producer and consumer are made at import, as applications do.

The environment says what happens at import, which with a preloaded application is in the master, before its forks:

- ``APP_BOOTSTRAP`` and ``APP_TOPIC``: the brokers, and where the records go;
- ``APP_MASTER=1``: the pool is connected and used there: records are sent and acknowledged on a thread, again and
  again, a consumer polls on another, and ``APP_LINGERING`` records linger in the accumulator when the workers are
  forked. What is acknowledged there is written to ``APP_ACKED``, one value a line;
- ``PROMETHEUS_MULTIPROC_DIR``: the pool's metrics are shown at ``/metrics``, those of all processes.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import parse_qs

from kafka.errors import IllegalStateError, KafkaError
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

from pooledkafka import Kafka, PoolClosedError
from pooledkafka.contrib.prometheus import register

__all__ = ["application"]

_LINGER_MS = 3_000

logging.basicConfig(level=logging.WARNING, format="LOG %(process)d %(levelname)s %(name)s %(message)s")

topic = os.environ["APP_TOPIC"]
kafka = Kafka(bootstrap_servers=os.environ["APP_BOOTSTRAP"], client_id="app")
pool = kafka.connection_pool()
producer = kafka.producer(connection_pool=pool)
consumer_of_import = kafka.consumer(topic, group_id=f"import-{os.getpid()}", connection_pool=pool)
sent_at_import: list[Any] = []
client_of_import: Any = None
imported_by = os.getpid()
life = f"{imported_by}.{time.time_ns()}"  # a server that reloads starts itself anew under the same process id

_reading = threading.Lock()
_reader: Any = None
_read: list[bytes] = []


def _produce_in_master() -> None:
    with open(os.environ["APP_ACKED"], "a", buffering=1) as acked:
        number = 0
        while True:
            value = f"master-{life}-{number}"
            try:
                producer.send(topic, value.encode()).get(timeout=30)
            except (PoolClosedError, IllegalStateError):
                return  # the interpreter ends, and this thread, a daemon, with it
            acked.write(value + "\n")
            number += 1
            time.sleep(0.05)


def _linger_in_master(futures: list[Any]) -> None:
    with open(os.environ["APP_ACKED"], "a", buffering=1) as acked:
        for number, future in enumerate(futures):
            future.get(timeout=30)
            acked.write(f"lingering-{life}-{number}\n")


def _consume_in_master() -> None:
    while True:
        consumer_of_import.poll(timeout_ms=200)


if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
    register(pool, interval_s=0.2)

if os.environ.get("APP_MASTER"):
    producer.send(topic, f"import-{life}".encode()).get(timeout=30)
    client_of_import = pool.client
    patient = kafka.producer(connection_pool=pool, linger_ms=_LINGER_MS)
    patient.partitions_for(topic)
    sent_at_import = [
        patient.send(topic, f"lingering-{life}-{number}".encode()) for number in range(int(os.environ["APP_LINGERING"]))
    ]
    threading.Thread(target=_produce_in_master, daemon=True).start()
    threading.Thread(target=_consume_in_master, daemon=True).start()
    threading.Thread(target=_linger_in_master, args=(sent_at_import,), daemon=True).start()


def _send(value: str) -> dict[str, Any]:
    metadata = producer.send(topic, value.encode()).get(timeout=30)
    return {"partition": metadata.partition, "offset": metadata.offset}


def _read_some() -> dict[str, Any]:
    """Read with a consumer of this process, from the beginning of the topic."""
    global _reader  # noqa: PLW0603
    with _reading:
        if _reader is None:
            _reader = kafka.consumer(
                topic, group_id=f"app-{os.getpid()}", connection_pool=pool, auto_offset_reset="earliest"
            )
        batches = _reader.poll(timeout_ms=1_000)
        _read.extend(record.value for records in batches.values() for record in records)
        return {"read": len(_read)}


def _stats() -> dict[str, Any]:
    stats = pool.stats()
    return {
        "connections": {node: sum(lanes.values()) for node, lanes in stats.connections.items()},
        "repr": repr(pool),
        "threads": sorted(thread.name for thread in threading.enumerate()),
    }


def _inherited() -> dict[str, Any]:
    """What becomes of the objects that were made at import, in this process."""

    def outcome(use: Callable[[], Any]) -> str:
        try:
            use()
        except KafkaError as error:
            return f"{type(error).__name__}: {error}"
        return "used"

    return {
        "consumer": outcome(lambda: consumer_of_import.poll(timeout_ms=0)),
        "future": outcome(sent_at_import[0].get) if sent_at_import else None,
        "client": outcome(client_of_import.least_loaded_node) if client_of_import is not None else None,
        "admin": outcome(lambda: kafka.admin(connection_pool=pool).list_topics()),
    }


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    query = {name: values[0] for name, values in parse_qs(environ["QUERY_STRING"]).items()}
    match environ["PATH_INFO"]:
        case "/send":
            answer = _send(query["value"])
        case "/read":
            answer = _read_some()
        case "/stats":
            answer = _stats()
        case "/inherited":
            answer = _inherited()
        case "/metrics":
            registry = CollectorRegistry()
            MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
            start_response("200 OK", [("Content-Type", CONTENT_TYPE_LATEST)])
            return [generate_latest(registry)]
        case _:
            start_response("404 Not Found", [])
            return []
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({"pid": os.getpid(), "imported_by": imported_by, **answer}).encode()]
