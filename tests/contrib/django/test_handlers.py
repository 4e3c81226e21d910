from __future__ import annotations

from typing import Any

import pytest
from django.db import connection, transaction
from django.test import override_settings

from pooledkafka import ConfigurationError
from pooledkafka.contrib.django import _handlers, _hygiene, kafka_handler
from pooledkafka.contrib.django._exactly_once import exactly_once
from pooledkafka.contrib.django._handlers import Handler
from pooledkafka.contrib.django._hygiene import with_fresh_connections
from pooledkafka.contrib.django.models import HandledOffset
from pooledkafka.contrib.django.test import record_of
from tests.contrib.django.shop.models import Seen


def test_a_handler_stays_the_function_that_it_is() -> None:
    from tests.contrib.django.shop import kafka

    kafka.calls.clear()
    kafka.bill(record_of("orders", b"one"))
    assert [record.value for record in kafka.calls] == [b"one"]


def test_what_is_no_handler_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="kafka_handler needs topics and is called"):
        kafka_handler(group_id="billing")
    with pytest.raises(ConfigurationError, match="two handlers are named 'bill'"):
        kafka_handler("orders", group_id="billing", name="bill")(print)


def test_two_handlers_of_one_function_need_two_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_handlers, "_known", {})

    def see(record: Any) -> None:
        pass

    kafka_handler("orders", group_id="billing")(see)
    kafka_handler("orders", group_id="billing", retries=5)(see)  # as a reload does
    assert _handlers._known["see"].run_options == {"retries": 5}
    for topic, group, alias in (
        ("other", "billing", "default"),
        ("orders", "x", "default"),
        ("orders", "billing", "x"),
    ):
        with pytest.raises(ConfigurationError, match=r"two handlers are named 'see': .* give one another name="):
            kafka_handler(topic, group_id=group, alias=alias)(see)
    kafka_handler("other", group_id="billing", name="other")(see)
    assert [(name, each.topics) for name, each in _handlers._known.items()] == [
        ("see", ("orders",)),
        ("other", ("other",)),
    ]


def test_an_async_function_is_refused() -> None:
    async def see(record: Any) -> None:
        pass

    with pytest.raises(ConfigurationError, match=r"see is an async function, .* asgiref\.sync\.async_to_sync"):
        kafka_handler("orders", group_id="billing")(see)
    assert "see" not in _handlers._known


def test_connections_are_looked_at_before_and_after_each_record(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    monkeypatch.setattr(_hygiene, "close_old_connections", lambda: done.append("looked"))

    def fail(_: Any) -> None:
        done.append("handled")
        raise LookupError

    with pytest.raises(LookupError):
        with_fresh_connections(fail)(None)
    assert done == ["looked", "handled", "looked"]


@pytest.mark.django_db
def test_a_connection_within_a_transaction_is_left_alone() -> None:
    @with_fresh_connections
    def handle(_: Any) -> None:
        Seen.objects.create(value=b"one")

    connection.close_at = 0  # as old as can be
    try:
        handle(None)
    finally:
        connection.close_at = None
    assert Seen.objects.count() == 1


@pytest.mark.django_db
def test_the_list_of_queries_does_not_grow() -> None:
    handle = with_fresh_connections(lambda _: Seen.objects.count())
    with override_settings(DEBUG=True):
        connection.force_debug_cursor = True
        try:
            for _ in range(3):
                handle(None)
            assert len(connection.queries) == 1
        finally:
            connection.force_debug_cursor = False


@pytest.mark.django_db(transaction=True)
class TestExactlyOnce:
    def handler(self, batches: bool = False, fail: bool = False) -> Any:
        def see(given: Any) -> None:
            for record in given if batches else [given]:
                Seen.objects.create(value=record.value)
            if fail:
                raise LookupError

        return exactly_once(see, alias="default", group_id="billing", batches=batches, using="default")

    def seen(self) -> list[bytes]:
        return [bytes(each.value) for each in Seen.objects.order_by("pk")]

    def test_a_record_that_comes_again_is_skipped(self) -> None:
        for offset in (0, 1, 0, 1, 2, 7, 7):
            self.handler()(record_of("orders", b"%d" % offset, offset=offset))
        self.handler()(record_of("orders", b"other partition", partition=1))
        assert self.seen() == [b"0", b"1", b"2", b"7", b"other partition"]
        assert HandledOffset.objects.get(partition=0).next_offset == 8

    def test_one_that_fails_has_left_nothing_and_is_handled_again(self) -> None:
        record = record_of("orders", b"one", offset=4)
        with pytest.raises(LookupError):
            self.handler(fail=True)(record)
        assert self.seen() == []
        self.handler()(record)
        assert self.seen() == [b"one"]

    def test_only_the_fresh_ones_of_a_batch_are_handled(self) -> None:
        records = [record_of("orders", b"%d" % offset, offset=offset) for offset in range(6)]
        handle = self.handler(batches=True)
        handle(records[:3])
        handle(records[1:5])
        handle(records[:5])
        assert self.seen() == [b"0", b"1", b"2", b"3", b"4"]

    def test_a_handler_that_is_set_up_so_does_it(self) -> None:
        handler = Handler(
            "see",
            lambda record: Seen.objects.create(value=record.value),
            ("orders",),
            "billing",
            exactly_once_in="default",
        )
        for _ in range(2):
            handler.handle()(record_of("orders", b"one"))
        assert self.seen() == [b"one"]
        assert not transaction.get_connection().in_atomic_block
