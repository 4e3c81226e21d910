"""Found by the command, and imported by nothing else."""

from __future__ import annotations

from typing import Any

from pooledkafka.contrib.django import kafka_handler

calls: list[Any] = []
"""What handlers got."""
failing: dict[int, Exception] = {}
"""By offset, what ``bill`` raises."""
refused: set[bytes] = set()
"""The values that ``check`` cannot handle."""


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


@kafka_handler(
    "orders",
    group_id="checking",
    alias="embedded",
    retries=0,
    dead_letter_topic="orders.failed",
    error_limit=2,
    auto_offset_reset="earliest",
)
def check(record: Any) -> None:
    if record.value in refused:
        raise ValueError(f"{record.value!r} is no order")
