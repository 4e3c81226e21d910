"""A shop that takes orders: a Flask application with one connection pool for each of its processes.

The pool is made at import. Nothing connects there, so a server may load the application before it forks its workers;
each worker connects at its first use, without any hook. The environment says where Kafka is (``KAFKA_BOOTSTRAP``), the
topic (``SHOP_TOPIC``), and how many background consumers each process runs (``SHOP_CONSUMERS``, up to five).
"""

from __future__ import annotations

import json
import logging
import os
from typing import Any

from flask import Flask, request
from kafka.errors import KafkaError
from readers import Readers
from settings import ANSWER_WITHIN_S, CLUSTER, GROUPS, PRODUCER, TOPIC

from pooledkafka import Kafka

Answer = tuple[dict[str, Any], int]

logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(process)d %(levelname)s %(name)s %(message)s")

kafka = Kafka(**CLUSTER)
# The pool asks for metadata this often, idle or not: so its age says when a broker last answered this process.
pool = kafka.connection_pool(metadata_max_age_ms=10_000)
METADATA_TOO_OLD_MS = 20_000
readers = Readers(kafka, pool, TOPIC, GROUPS)
app = Flask(__name__)


@app.post("/orders")
def take_order() -> Answer:
    """202 when the brokers have acknowledged the order; 503 with the reason when they have not."""
    readers.start_once()
    order = request.get_json(silent=True)
    if not isinstance(order, dict) or not isinstance(order.get("id"), str):
        return {"reason": 'send JSON with an id: {"id": "a-1", ...}'}, 400
    # A handle of this request, which costs microseconds: all handles share one producer and its connections. It holds
    # nothing of its own once its records are acknowledged, so it need not be closed.
    producer = kafka.producer(connection_pool=pool, **PRODUCER)
    try:
        sent = producer.send(TOPIC, json.dumps(order).encode(), key=order["id"].encode()).get(timeout=ANSWER_WITHIN_S)
    except KafkaError as error:
        return {"reason": f"{type(error).__name__}: {error}", "pid": os.getpid()}, 503
    return {"id": order["id"], "partition": sent.partition, "offset": sent.offset, "pid": os.getpid()}, 202


@app.get("/alive")
def alive() -> Answer:
    """Whether this process answers, which Kafka has no part in: for who would restart it."""
    return {"pid": os.getpid()}, 200


@app.get("/health")
def health() -> Answer:
    """200 where this process can do its work, 503 with the reason where it cannot."""
    try:
        pool.connect(timeout_ms=2_000)  # at once if it is connected; else no user has to wait for that
    except KafkaError as error:
        return {"status": "not connected", "reason": str(error)}, 503
    stats = pool.stats()
    answers = stats.metadata_age_ms is not None and stats.metadata_age_ms < METADATA_TOO_OLD_MS
    return {
        "status": "ok" if answers else "no broker answers",
        "metadata_age_ms": stats.metadata_age_ms,
        "connections": {node: sum(lanes.values()) for node, lanes in stats.connections.items()},
        "requests_in_flight": stats.requests_in_flight,
        "consumers": stats.consumers,
        "pid": os.getpid(),
    }, (200 if answers else 503)


@app.get("/stats")
def stats() -> Answer:
    """What the consumers of this process have read, by group."""
    readers.start_once()
    return {"read": readers.counts(), "pid": os.getpid()}, 200
