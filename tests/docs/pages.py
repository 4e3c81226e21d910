"""The pages of the documentation, and what their examples take for granted."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import flask
import prometheus_client
import pytest
from kafka import KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError

from pooledkafka import Admin, ConnectionPool, Consumer, Kafka, Producer
from pooledkafka.contrib.opentelemetry import PooledKafkaInstrumentor
from pooledkafka.contrib.prometheus import unregister
from pooledkafka.testing import Drop, EmbeddedKafka

ROOT = Path(__file__).parent.parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@contextmanager
def names_of(page: Path, cluster: EmbeddedKafka) -> Iterator[dict[str, Any]]:
    """What the first example of a page may use; at the end, what the last one has left open is closed."""
    kafka = Kafka(**cluster.client_options(), client_id="docs")
    names: dict[str, Any] = {"kafka": kafka, "pytest": pytest, "Drop": Drop, "bill": print}
    with ExitStack() as stack:
        for logger in map(logging.getLogger, ("", "pooledkafka", "kafka")):
            stack.callback(logger.setLevel, logger.level)
        stack.callback(PooledKafkaInstrumentor().uninstrument)
        if page.name == "README.md":
            names["bill"] = lambda record: names["consumer"].stop()
        elif page.name == "wsgi.md":
            names |= _web_application()
        elif page.name == "testing.md":
            names |= {"start_consumer": _starter(stack), "KafkaProducer": KafkaProducer}
        elif page.name == "metrics.md":
            names["pool"] = None
            patch = stack.enter_context(pytest.MonkeyPatch.context())
            patch.setattr(prometheus_client, "start_http_server", lambda port: None)  # which may be taken
            stack.callback(lambda: unregister(names["pool"]))
        elif page.name not in ("tutorial.md", "migrating.md"):
            names["pool"] = stack.enter_context(kafka.connection_pool())
        try:
            yield names
        finally:
            left = list(names.values())
            for each in (*_of(left, Consumer, Producer, Admin), *_of(left, ConnectionPool)):
                each.close() if not isinstance(each, ConnectionPool) else each.disconnect()


def _of(values: list[Any], *types: type) -> list[Any]:
    return [value for value in values if isinstance(value, types)]


def _web_application() -> dict[str, Any]:
    """Flask's names, and a stand-in for a signal of Celery's, which is not installed."""
    signal = SimpleNamespace(connect=lambda receiver: receiver)
    return {
        "Kafka": Kafka,
        "KafkaError": KafkaError,
        "app": flask.Flask("shop"),
        "request": flask.request,
        "worker_process_shutdown": signal,
    }


def _starter(stack: ExitStack) -> Any:
    """What starts a consumer in a group, as an example that holds its join wants it; it ends by itself after it."""

    def start(cluster: EmbeddedKafka) -> None:
        def read() -> None:
            consumer = KafkaConsumer("orders", group_id="billing", **cluster.client_options())
            try:
                consumer.poll(timeout_ms=5_000)
            except KafkaError:
                pass  # its cluster is gone
            finally:
                consumer.close(autocommit=False, timeout_ms=0)

        cluster.create_topic("orders")
        thread = threading.Thread(target=read)
        stack.callback(thread.join)
        thread.start()

    return start
