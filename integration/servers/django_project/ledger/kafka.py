from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from integration.servers.django_project.ledger.models import Entry
from pooledkafka.contrib.django import kafka_handler

TOPIC = os.environ.get("TOPIC", "ledger")


@kafka_handler(TOPIC, group_id=f"{TOPIC}.enter", retries=0)
def enter(record: Any) -> None:
    value = record.value.decode()
    if value == "fail":
        raise LookupError("no such account")
    Entry.objects.create(handler="enter", offset=record.offset, value=value)
    if value == "hold":
        print("holding", flush=True)
        while not Path(os.environ["GO"]).exists():
            time.sleep(0.02)


@kafka_handler(TOPIC, group_id=f"{TOPIC}.exact", retries=0, exactly_once_in="default")
def exact(record: Any) -> None:
    Entry.objects.create(handler="exact", offset=record.offset, value=record.value.decode())
    if record.value == b"hold":
        print("holding", flush=True)
        while not Path(os.environ["GO"]).exists():
            time.sleep(0.02)
