"""How a project tests what it sends and handles: ``manage.py test``, or pytest with pytest-django."""

from __future__ import annotations

from django.core.management import call_command
from django.test import TestCase, TransactionTestCase, override_settings
from shop import settings

from orders.kafka import bill
from orders.models import Invoice, Order, Refund
from pooledkafka.contrib.django import pools, producer
from pooledkafka.contrib.django.models import OutboxRecord
from pooledkafka.contrib.django.test import KafkaTestMixin, embedded_cluster, record_of


class WhatIsSent(KafkaTestMixin, TestCase):
    """Without a broker."""

    def test_an_order_is_told(self) -> None:
        order_id = self.client.post("/orders/", {"item": "tea"}).json()["id"]
        self.assertProduced("orders.placed", value={"id": order_id, "item": "tea"}, key=b"%d" % order_id, count=1)

    def test_one_that_is_not_made_is_not(self) -> None:
        with self.assertRaisesMessage(ValueError, "unicorns"):
            self.client.post("/orders/", {"item": "unicorn"})
        self.assertFalse(Order.objects.exists())
        self.assertNothingProduced()

    def test_a_cancellation_is_in_the_outbox(self) -> None:
        order_id = self.client.post("/orders/", {"item": "tea"}).json()["id"]
        self.client.post(f"/orders/{order_id}/cancel/")
        self.assertEqual(OutboxRecord.objects.get().topic, "orders.cancelled")
        self.assertProduced("orders.cancelled", value={"id": order_id}, count=1)


class WhatIsHandled(TestCase):
    """A handler is a function."""

    def test_an_order_is_billed(self) -> None:
        bill(record_of("orders.placed", {"id": 5, "item": "tea"}))
        self.assertEqual(Invoice.objects.get().order_id, 5)


@override_settings(POOLEDKAFKA={"default": {"BACKEND": "embedded", **settings._CLIENTS}})
class TheWholeWay(TransactionTestCase):
    """With a Kafka cluster in this process, and the handlers run as in production."""

    def setUp(self) -> None:
        cluster = embedded_cluster()
        for topic in ("orders.placed", "orders.cancelled"):
            cluster.create_topic(topic)
        self.addCleanup(pools.close_all)

    def test_orders_are_billed_and_refunded(self) -> None:
        ids = [self.client.post("/orders/", {"item": item}).json()["id"] for item in ("tea", "bread")]
        self.client.post(f"/orders/{ids[0]}/cancel/")
        producer.flush(timeout=10)
        call_command("kafka_relay_outbox", once=True, verbosity=0)
        call_command("kafka_consume", once=True, verbosity=0)
        self.assertEqual(sorted(Invoice.objects.values_list("order_id", flat=True)), sorted(ids))
        self.assertEqual(list(Refund.objects.values_list("order_id", flat=True)), [ids[0]])
