"""What ``manage.py test`` runs: Django's own test cases with the mixin."""

from __future__ import annotations

import pytest
from django.db import transaction
from django.test import SimpleTestCase, TestCase, TransactionTestCase

from pooledkafka.contrib.django import outbox, producer
from pooledkafka.contrib.django.test import KafkaTestMixin


class InATestCase(KafkaTestMixin, TestCase):
    @classmethod
    def setUpTestData(cls) -> None:
        producer.send_on_commit("orders", b"of the class")

    def test_what_waits_for_the_commit_counts(self) -> None:
        with transaction.atomic():
            producer.send_on_commit("orders", b"one", key=b"k")
            outbox.add("orders", b"two", key=b"k")
        self.assertProduced("orders", key=b"k", count=2)
        self.assertProduced("orders", value=b"one", alias="default")

    def test_nothing_of_another_test_is_there(self) -> None:
        producer.send("orders", b"one")
        self.assertProduced("orders", value=b"one", count=1)

    def test_failures_say_what_was_sent(self) -> None:
        producer["analytics"].send("clicks", {"a": 1})
        self.assertProduced("clicks", value={"a": 1})
        self.assertProduced("clicks", value=b'{"a": 1}')
        with pytest.raises(AssertionError, match="0 such messages were sent to 'orders', expected at least one"):
            self.assertProduced("orders")
        with pytest.raises(AssertionError, match="1 such messages were sent to 'clicks', expected 2"):
            self.assertProduced("clicks", count=2)
        with pytest.raises(AssertionError, match="1 messages were sent, expected none"):
            self.assertNothingProduced()
        self.assertNothingProduced("orders")


class InATransactionTestCase(KafkaTestMixin, TransactionTestCase):
    def test_it_is_sent_at_the_commit_and_not_before(self) -> None:
        with transaction.atomic():
            producer.send_on_commit("orders", b"one")
            self.assertNothingProduced()
        self.assertProduced("orders", count=1)


class WithoutADatabase(KafkaTestMixin, SimpleTestCase):
    def test_what_is_sent_is_captured(self) -> None:
        producer.send_batch("orders", [{"value": b"one"}, {"value": b"two"}])
        self.assertProduced("orders", count=2)
