"""The commands, on an embedded cluster; that they end in order on signals is in ``integration/test_django.py``."""

from __future__ import annotations

import io
import json
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from kafka.errors import TopicAuthorizationFailedError
from kafka.structs import TopicPartition

from pooledkafka.contrib.django import _handlers, pools, producer
from pooledkafka.contrib.django._handlers import Handler
from pooledkafka.contrib.django.commands import KafkaCommand
from pooledkafka.contrib.django.management.commands import kafka_produce
from pooledkafka.contrib.django.models import HandledOffset
from pooledkafka.contrib.django.test import Messages, embedded_cluster
from pooledkafka.testing import Error
from tests.contrib.django.shop import kafka as shop


@pytest.fixture
def orders() -> Iterator[str]:
    """A topic of two partitions on the embedded cluster."""
    shop.calls.clear()
    shop.failing.clear()
    shop.refused.clear()
    embedded_cluster("embedded").create_topic("orders", partitions=2)
    yield "orders"
    pools.close_all()


def send(*values: bytes, partition: int = 0) -> None:
    messages = [{"value": value, "partition": partition} for value in values]
    producer["embedded"].send_batch("orders", messages).get(timeout=10)


def called(name: str, *arguments: Any, **options: Any) -> tuple[str, str]:
    out, err = io.StringIO(), io.StringIO()
    call_command(name, *arguments, stdout=out, stderr=err, **options)
    return out.getvalue(), err.getvalue()


def committed(group: str) -> list[int | None]:
    with pools.alias("embedded").consumer(group_id=group) as consumer:
        return [consumer.committed(TopicPartition("orders", number)) for number in (0, 1)]


class TestConsume:
    def test_it_lists_handlers(self) -> None:
        out, _ = called("kafka_consume", "--list")
        assert "bill\ttopics=orders\tgroup=billing\talias=embedded\ttests.contrib.django.shop.kafka.bill" in out
        assert "audit\t" in out

    def test_it_lists_what_is_selected(self) -> None:
        assert "audit" not in called("kafka_consume", "--list", "bill")[0]
        assert "bill" not in called("kafka_consume", "--list", "--group", "audit")[0]
        assert not called("kafka_consume", "--list", "bill", "--group", "audit")[0]

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            (["bil"], "no handler is 'bil'. Did you mean 'bill'?"),
            (["--group", "bilng"], "no handler has the group 'bilng'. Did you mean 'billing'?"),
            (["--alias", "x"], "no handler has the alias 'x'. kafka_consume --list shows all."),
            (["bill", "--group", "audit"], "there are no handlers to run"),
            (["--max-records", "0"], "--max-records must be 1 or more"),
        ],
    )
    def test_what_is_not_there_is_refused(self, arguments: list[str], text: str) -> None:
        with pytest.raises(CommandError) as error:
            called("kafka_consume", *arguments)
        assert text in str(error.value)

    def test_a_cluster_that_is_not_there_is_one_clear_error(self, settings: Any) -> None:
        settings.POOLEDKAFKA = {
            "default": {"BACKEND": "memory"},
            "embedded": {"bootstrap_servers": "127.0.0.1:1", "bootstrap_timeout_ms": 300},
        }
        with pytest.raises(CommandError, match=r"127\.0\.0\.1:1"):
            called("kafka_consume")

    def test_a_handler_that_fails_for_good_ends_the_command_and_the_others(
        self, orders: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        send(b"one", b"two", b"three")
        shop.failing[1] = LookupError("no such customer")
        with pytest.raises(CommandError) as error:
            called("kafka_consume")
        expected = "handler 'bill' (group 'billing') failed at orders[0]@1: LookupError: no such customer"
        assert str(error.value) == expected
        assert expected in caplog.text
        assert committed("billing")[0] == 1, "what was handled is committed, and nothing else"

    def test_so_many_that_fail_in_a_row_end_the_command_and_none_is_lost(self, orders: str) -> None:
        embedded_cluster("embedded").create_topic("orders.failed")
        send(b"bad", b"good", b"bad", b"worse", b"last")
        shop.refused.update({b"bad", b"worse"})
        with pytest.raises(CommandError, match="2 records in a row"):
            called("kafka_consume", "check")
        assert committed("checking")[0] == 4, "those that failed are dead letters"
        with pools.alias("embedded").consumer(
            "orders.failed", auto_offset_reset="earliest", consumer_timeout_ms=500
        ) as consumer:
            assert [record.value for record in consumer] == [b"bad", b"bad", b"worse"]
        shop.refused.clear()
        called("kafka_consume", "check", "--once")
        assert committed("checking")[0] == 5

    def test_once_handles_what_is_there(self, orders: str) -> None:
        send(b"one", b"two")
        send(b"three", partition=1)
        called("kafka_consume", "--once", "bill")
        assert sorted(record.value for record in shop.calls) == [b"one", b"three", b"two"]
        assert committed("billing") == [2, 1]
        called("kafka_consume", "--once", "bill")
        assert len(shop.calls) == 3

    def test_handlers_of_one_alias_share_its_pool_and_batches_are_lists(self, orders: str) -> None:
        send(b"one", b"two")
        called("kafka_consume", "--once")
        batches = [call for call in shop.calls if isinstance(call, list)]
        assert [[record.value for record in batch] for batch in batches] == [[b"one", b"two"]]
        lanes = pools["embedded"].stats().connections[1]
        assert lanes["control"] == lanes["produce"] == lanes["fetch"] == 1

    def test_max_records_ends_each_handler(self, orders: str) -> None:
        send(b"one", b"two", b"three")
        called("kafka_consume", "bill", "--max-records", "2")
        assert [record.value for record in shop.calls] == [b"one", b"two"]
        assert committed("billing")[0] == 2

    @pytest.mark.django_db(transaction=True)
    @pytest.mark.parametrize(
        ("database", "text"),
        [
            ("other", "handler 'exact': settings.DATABASES has no 'other'; it has default"),
            ("default", "handler 'exact': database 'default' has no table for exactly_once_in; run: manage.py migrate"),
        ],
    )
    def test_an_exact_handler_without_its_table_is_not_started(
        self, orders: str, database: str, text: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        exact = Handler("exact", print, ("orders",), "exact", alias="embedded", exactly_once_in=database)
        monkeypatch.setitem(_handlers._known, "exact", exact)
        monkeypatch.setattr(HandledOffset._meta, "db_table", "not_there")
        with pytest.raises(CommandError, match=text):
            called("kafka_consume", "exact")

    @pytest.mark.django_db(transaction=True)
    def test_an_exact_handler_with_its_table_is(self, orders: str, monkeypatch: pytest.MonkeyPatch) -> None:
        send(b"one")
        seen: list[bytes] = []
        exact = Handler(
            "exact",
            lambda record: seen.append(record.value),
            ("orders",),
            "exact",
            alias="embedded",
            exactly_once_in="default",
            consumer_options={"auto_offset_reset": "earliest"},
        )
        monkeypatch.setitem(_handlers._known, "exact", exact)
        called("kafka_consume", "exact", "--once")
        assert seen == [b"one"]


class TestProduce:
    def test_a_value_with_key_and_headers(self, orders: str) -> None:
        arguments = ["--value", "grün", "--key", "k", "--header", "a=b=c", "--alias", "embedded"]
        _, err = called("kafka_produce", "orders", *arguments)
        assert err == "1 record sent to orders\n"
        with pools.alias("embedded").consumer() as consumer:
            consumer.assign([TopicPartition("orders", 0), TopicPartition("orders", 1)])
            consumer.seek_to_beginning()
            records = [record for found in consumer.poll(10_000).values() for record in found]
        assert [(each.value, each.key, each.headers) for each in records] == [("grün".encode(), b"k", [("a", b"b=c")])]

    def test_the_lines_of_standard_input(self, kafka_messages: Messages, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"one\ntwo\r\n\nlast")))
        _, err = called("kafka_produce", "orders")
        assert err == "4 records sent to orders\n"
        assert [message.value for message in kafka_messages] == [b"one", b"two", b"", b"last"]

    def test_a_line_is_sent_before_the_next_one_comes(self, orders: str, monkeypatch: pytest.MonkeyPatch) -> None:
        def arrived() -> list[bytes | None]:
            with pools.alias("embedded").consumer() as consumer:
                consumer.assign([TopicPartition("orders", 0)])
                consumer.seek_to_beginning()
                return [record.value for found in consumer.poll(10_000).values() for record in found]

        seen: list[list[bytes | None]] = []

        def lines() -> Iterator[str]:
            yield "one\n"
            seen.append(arrived())
            yield "two\n"

        monkeypatch.setattr("sys.stdin", lines())
        monkeypatch.setattr(kafka_produce, "_AT_ONCE", 2)
        _, err = called("kafka_produce", "orders", "--partition", "0", "--alias", "embedded")
        assert err == "2 records sent to orders\n"
        assert seen == [[b"one"]]
        assert arrived() == [b"one", b"two"]

    def test_a_record_that_cannot_be_sent_is_an_error(self, orders: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sys.stdin", iter(["one\n"]))
        cluster = embedded_cluster("embedded")
        refused = Error(TopicAuthorizationFailedError)
        with cluster.intercept("Produce", refused), pytest.raises(CommandError, match="TopicAuthorizationFailed"):
            called("kafka_produce", "orders", "--alias", "embedded")

    def test_a_header_without_a_value_is_refused(self) -> None:
        with pytest.raises(CommandError, match="--header 'a' must be NAME=VALUE"):
            called("kafka_produce", "orders", "--value", "", "--header", "a")

    def test_an_alias_that_is_not_there_is_refused(self) -> None:
        with pytest.raises(CommandError, match="has no alias 'other'"):
            called("kafka_produce", "orders", "--value", "", "--alias", "other")


class TestStatus:
    def test_it_says_what_there_is(self, orders: str) -> None:
        send(b"one", b"two", b"three")
        with pools.alias("embedded").consumer("orders", group_id="billing", auto_offset_reset="earliest") as consumer:
            consumer.run(lambda record: consumer.stop())
        status = json.loads(called("kafka_status", "--alias", "embedded", "--json")[0])["embedded"]
        assert [broker["node_id"] for broker in status["brokers"]] == [1]
        assert status["brokers"][0]["address"] in status["bootstrap_servers"]
        assert status["pool"]["connections_open"] > 0
        assert status["groups"]["billing"]["orders"]["lag"] == 2
        assert status["groups"]["audit"]["orders"] == {"partitions": 2, "lag": None, "uncommitted_partitions": 2}
        out, _ = called("kafka_status")
        assert "default: in memory, without brokers" in out
        assert "embedded: connected; brokers 1 at 127.0.0.1:" in out
        assert "group billing, topic orders: lag 2" in out
        assert "group audit, topic orders: nothing committed in 2 of 2 partitions" in out

    def test_a_cluster_that_is_not_there_is_an_error(self, settings: Any) -> None:
        settings.POOLEDKAFKA = {"default": {"bootstrap_servers": "127.0.0.1:1"}}
        out = io.StringIO()
        with pytest.raises(CommandError, match="cannot reach the cluster of default"):
            call_command("kafka_status", "--json", "--timeout", "0.3", stdout=out)
        assert "127.0.0.1:1" in json.loads(out.getvalue())["default"]["error"]


class Waiting(KafkaCommand):
    """Waits for a signal."""

    said: list[str]

    def handle_kafka(self, *_: Any, **options: Any) -> None:
        self.said = []
        self.on_stop(lambda: self.said.append("told"))
        signal.raise_signal(signal.SIGTERM)
        assert self.pause(600)
        assert self.stopped
        if options.get("again"):
            signal.raise_signal(signal.SIGTERM)
        self.said.append("ended")


def test_the_first_signal_asks_and_the_second_ends() -> None:
    before = signal.getsignal(signal.SIGTERM)
    command = Waiting()
    command.handle()
    assert command.said == ["told", "ended"]
    command = Waiting()
    with pytest.raises(SystemExit) as error:
        command.handle(again=True)
    assert error.value.code == 128 + signal.SIGTERM
    assert command.said == ["told"]
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_command_runs_on_any_thread() -> None:
    """Where it hears no signals."""
    done: list[str] = []

    class Command(KafkaCommand):
        def handle_kafka(self, *_: Any, **__: Any) -> None:
            done.append("done")

    thread = threading.Thread(target=Command().handle)
    thread.start()
    thread.join()
    assert done == ["done"]
