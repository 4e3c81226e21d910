"""Tasks that send records over a pool that is made at import, as docs/wsgi.md says."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery
from celery.signals import worker_process_shutdown

from pooledkafka import ConnectionPool, Producer

folder = os.environ["APP_QUEUE"]
topic = os.environ["APP_TOPIC"]
app = Celery("shop", broker="filesystem://")
app.conf.broker_transport_options = {"data_folder_in": folder, "data_folder_out": folder, "control_folder": folder}
app.conf.worker_prefetch_multiplier = 1
pool = ConnectionPool(bootstrap_servers=os.environ["APP_BOOTSTRAP"].split(","), client_id="tasks")
if os.environ.get("APP_MASTER"):
    Producer(connection_pool=pool).partitions_for(topic)  # in use before the worker's processes are forked


def tell(value: str) -> None:
    """Send a record, and wait for its acknowledgement."""
    with Producer(connection_pool=pool) as producer:
        producer.send(topic, f"{value}-{os.getpid()}".encode()).get(timeout=30)


def tell_some_time(value: str) -> None:
    """Send a record that waits for others, longer than this process lives."""
    Producer(connection_pool=pool, linger_ms=60_000).send(topic, f"{value}-{os.getpid()}".encode())


app.task(name="tell")(tell)
app.task(name="tell_some_time")(tell_some_time)


@worker_process_shutdown.connect  # type: ignore[untyped-decorator]
def disconnect(**_: Any) -> None:
    """Send what waits: such a process ends without anything that Python does at its end."""
    pool.disconnect(timeout_ms=5_000)
