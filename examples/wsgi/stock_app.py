"""The same application over stock kafka-python, as one would write it there; for comparison.

``SHOP_PRODUCER`` says which way: ``process``, one KafkaProducer for each process, made at its first use; ``request``,
one for each request; ``import``, one that is made at import, which with a preloaded application is before the forks.
Each background consumer is a KafkaConsumer with connections of its own.
"""

from __future__ import annotations

import atexit
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from flask import Flask, request
from kafka import KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError
from settings import ANSWER_WITHIN_S, CLUSTER, GROUPS, PRODUCER, TOPIC

Answer = tuple[dict[str, Any], int]

WAY = os.environ.get("SHOP_PRODUCER", "process")

app = Flask(__name__)
starting = threading.Lock()
stopped = threading.Event()
threads: list[threading.Thread] = []
read = dict.fromkeys(GROUPS, 0)  # each written by its own thread
shared: Any = KafkaProducer(**CLUSTER, **PRODUCER) if WAY == "import" else None


@contextmanager
def producer() -> Iterator[Any]:
    global shared  # noqa: PLW0603
    if WAY == "request":
        own = KafkaProducer(**CLUSTER, **PRODUCER)
        try:
            yield own
        finally:
            own.close()
        return
    with starting:
        if shared is None:
            shared = KafkaProducer(**CLUSTER, **PRODUCER)
    yield shared


def count(group: str) -> None:
    consumer = KafkaConsumer(
        TOPIC, **CLUSTER, group_id=f"{TOPIC}.{group}", auto_offset_reset="earliest", enable_auto_commit=False
    )
    while not stopped.is_set():
        if batches := consumer.poll(timeout_ms=500):
            read[group] += sum(map(len, batches.values()))
            with suppress(KafkaError):  # the partitions are another member's by now, who reads that again
                consumer.commit()
    consumer.close()


def start_readers_once() -> None:
    with starting:
        if threads or not GROUPS:
            return
        threads.extend(threading.Thread(target=count, args=(group,), daemon=True) for group in GROUPS)
        for thread in threads:
            thread.start()
        atexit.register(stop_readers)


def stop_readers() -> None:
    stopped.set()
    for thread in threads:
        thread.join(10.0)


@app.post("/orders")
def take_order() -> Answer:
    start_readers_once()
    order = request.get_json()
    try:
        with producer() as sender:
            sent = sender.send(TOPIC, json.dumps(order).encode(), key=order["id"].encode()).get(timeout=ANSWER_WITHIN_S)
    except KafkaError as error:
        return {"reason": f"{type(error).__name__}: {error}", "pid": os.getpid()}, 503
    return {"id": order["id"], "partition": sent.partition, "offset": sent.offset, "pid": os.getpid()}, 202


@app.get("/alive")
def alive() -> Answer:
    return {"pid": os.getpid()}, 200


@app.get("/stats")
def stats() -> Answer:
    start_readers_once()
    return {"read": read, "pid": os.getpid()}, 200
