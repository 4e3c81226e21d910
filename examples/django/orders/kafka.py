"""Handlers; kafka_consume imports this module."""

from __future__ import annotations

from typing import Any

from orders.models import Invoice, Refund
from pooledkafka.contrib.django import kafka_handler


@kafka_handler("orders.placed", group_id="billing", exactly_once_in="default", dead_letter_topic="orders.failed")
def bill(record: Any) -> None:
    """Make an invoice: exactly one for each event, since the offset is noted in the same transaction."""
    Invoice.objects.create(order_id=record.value["id"], item=record.value["item"])


@kafka_handler("orders.cancelled", group_id="refunds", batches=True)
def refund(records: list[Any]) -> None:
    """Note refunds, many at once; doing so twice does no harm, so at-least-once is enough."""
    Refund.objects.bulk_create([Refund(order_id=record.value["id"]) for record in records], ignore_conflicts=True)
