"""The examples of docs/django.md, one after the other as on the page; run by test_django.py."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import call_command
from django.test import override_settings
from orders.models import Invoice, Order
from shop import settings
from sybil import Sybil
from sybil.parsers.markdown import CodeBlockParser

from pooledkafka.contrib.django import _handlers, pools, producer
from pooledkafka.contrib.django.models import OutboxRecord
from pooledkafka.contrib.django.test import embedded_cluster, record_of
from tests.docs.pages import ROOT

EMBEDDED = {"BACKEND": "embedded", **settings._CLIENTS}

PAGE = ROOT / "docs" / "django.md"
BLOCKS = [
    compile("\n" * (example.line + example.parsed.line_offset) + example.parsed, str(PAGE), "exec", dont_inherit=True)
    for example in Sybil([CodeBlockParser("python", lambda _: None)]).parse(PAGE).examples()
]
SETTINGS, SEND, ON_COMMIT, OUTBOX, HANDLER, EXACTLY_ONCE, COMMAND, TEST_CASE, WITH_PYTEST, WHOLE_WAY = BLOCKS
shown: dict[str, Any] = {}
"""What the examples before have made."""

# These are tests themselves, and are collected here.
exec(TEST_CASE)
exec(WITH_PYTEST)
exec(WHOLE_WAY)


@pytest.fixture
def clusters() -> Iterator[None]:
    """Both aliases of the page, each with a cluster in this process."""
    with override_settings(POOLEDKAFKA={"default": EMBEDDED, "analytics": {"BACKEND": "embedded"}}):
        yield
        pools.close_all()


@pytest.fixture
def no_handlers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The project has one of the same name."""
    monkeypatch.setattr(_handlers, "_known", {})


def records() -> list[Any]:
    """What is in the topic of orders."""
    found: list[Any] = []
    with pools.alias("default").consumer("orders.placed", group_id=f"look-{uuid4()}") as consumer:
        consumer.run(lambda record: found.append(record.value), until_end=True)
    return found


def test_the_settings_are_right() -> None:
    names: dict[str, Any] = {"INSTALLED_APPS": []}
    exec(SETTINGS, names)
    assert names["INSTALLED_APPS"] == ["pooledkafka.contrib.django"]
    with override_settings(POOLEDKAFKA=names["POOLEDKAFKA"]):
        call_command("check", fail_level="WARNING")


def test_sending(clusters: None) -> None:
    embedded_cluster().create_topic("orders.placed")
    exec(SEND, shown)
    assert records() == [{"id": 5}, {"id": 6}, {"id": 7}]


def test_sending_on_commit_and_the_outbox(clusters: None, transactional_db: None) -> None:
    embedded_cluster().create_topic("orders.placed")
    exec(SEND, shown)  # with the imports that these take for granted
    exec(ON_COMMIT, shown)
    producer.flush(timeout=10)
    order = Order.objects.get()
    assert records()[-1] == {"id": order.pk}
    exec(OUTBOX, shown)
    assert Order.objects.get().cancelled
    assert OutboxRecord.objects.get().topic == "orders.cancelled"


@pytest.mark.parametrize("block", [HANDLER, EXACTLY_ONCE], ids=["a handler", "exactly once"])
def test_a_handler(db: None, no_handlers: None, block: Any) -> None:
    exec(HANDLER, shown)  # with the imports that the second one takes for granted
    _handlers._known.clear()
    exec(block, shown)
    assert list(_handlers._known) == ["bill"]
    shown["bill"](record_of("orders.placed", {"id": 5}))
    assert Invoice.objects.get().order_id == 5


def test_a_command_ends_softly(clusters: None, capsys: pytest.CaptureFixture[str]) -> None:
    embedded_cluster().create_topic("orders.placed")
    for number in (5, 6):
        producer.send("orders.placed", {"id": number}).get(timeout=10)
    exec(COMMAND, shown)

    def audit(command: Any, record: Any) -> None:
        shown["Command"].audit(command, record)
        if record.value["id"] == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    call_command(type("UntilTheSecond", (shown["Command"],), {"audit": audit})())
    assert capsys.readouterr().out == "order 5\norder 6\n"
