"""``manage.py demo``: orders are placed, one is cancelled, and the handlers do their work, in one process."""

from __future__ import annotations

from typing import Any

from django.core.management import call_command
from django.test import Client

from orders.models import Invoice, Order, Refund
from pooledkafka.contrib.django import pools, producer
from pooledkafka.contrib.django.commands import KafkaCommand
from pooledkafka.contrib.django.models import HandledOffset


class Command(KafkaCommand):
    """Shows the whole way."""

    help = "Place orders by the views, relay the outbox, and run the handlers until all is handled."

    def handle_kafka(self, *_: Any, **__: Any) -> None:
        """Do it."""
        if pools.alias("default").settings.backend == "embedded":
            HandledOffset.objects.all().delete()  # a new cluster, whose offsets begin anew
        client = Client()
        for item in ("tea", "bread", "cheese"):
            client.post("/orders/", {"item": item})
        newest = Order.objects.order_by("-pk")[0]
        client.post(f"/orders/{newest.pk}/cancel/")
        producer.flush(timeout=30)
        call_command("kafka_relay_outbox", once=True, verbosity=0)
        call_command("kafka_consume", once=True, verbosity=0)
        self.stdout.write(
            f"{Order.objects.count()} orders, {Invoice.objects.count()} invoices, {Refund.objects.count()} refunds, "
            f"over {pools['default'].stats().connections_open} connections"
        )
