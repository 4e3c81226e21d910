"""Found by the command, and imported by nothing else."""

from __future__ import annotations

from typing import Any

from pooledkafka.contrib.django import kafka_handler

calls: list[Any] = []
"""What handlers got."""
failing: dict[int, Exception] = {}
"""By offset, what ``bill`` raises."""


@kafka_handler("orders", group_id="billing", alias="embedded", retries=0, auto_offset_reset="earliest")
def bill(record: Any) -> None:
    if record.offset in failing:
        raise failing[record.offset]
    calls.append(record)


@kafka_handler(
    "orders", group_id="audit", alias="embedded", batches=True, retries=0, name="audit", auto_offset_reset="earliest"
)
def note(records: list[Any]) -> None:
    calls.append(records)
