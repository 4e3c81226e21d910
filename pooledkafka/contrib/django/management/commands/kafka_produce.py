"""``manage.py kafka_produce``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from django.core.management.base import CommandError, CommandParser

from pooledkafka.contrib.django import pools
from pooledkafka.contrib.django._capture import capture_of
from pooledkafka.contrib.django._message import encoded
from pooledkafka.contrib.django.commands import KafkaCommand

__all__ = ["Command"]

_AT_ONCE = 1_000
"""How many records may wait for their acknowledgements."""


class Command(KafkaCommand):
    """Sends one record, or one for each line of standard input."""

    help = (
        "Send a record to a topic, and wait until it is acknowledged. Without --value each line of standard input is a "
        "record. Text is sent as UTF-8 as it is, without the serializers of the settings."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        """What to send, and where."""
        parser.add_argument("topic", metavar="TOPIC")
        parser.add_argument("--value", help="the record's value. Default: each line of standard input")
        parser.add_argument("--key", help="the key of the record, or of all records")
        parser.add_argument("--header", action="append", default=[], metavar="K=V", help="a header; repeatable")
        parser.add_argument("--partition", type=int, help="the partition. Default: as the key chooses")
        parser.add_argument("--alias", default="default", help="of settings.POOLEDKAFKA. Default: default")

    def handle_kafka(self, *_: Any, **options: Any) -> None:
        """Send."""
        common = {
            "key": None if options["key"] is None else options["key"].encode(),
            "headers": [_header(given) for given in options["header"]],
            "partition": options["partition"],
        }
        lines = [options["value"].encode()] if options["value"] is not None else self._lines()
        sent = 0
        waited_for: list[Any] = []
        send = self._sender(options["alias"], options["topic"], common)
        for value in lines:  # each when it is there: the next line may take its time
            waited_for.append(send(value))
            sent += 1
            if len(waited_for) == _AT_ONCE:
                _wait(waited_for)
        _wait(waited_for)
        self.stderr.write(f"{sent} {'record' if sent == 1 else 'records'} sent to {options['topic']}")

    def _lines(self) -> Iterator[bytes]:
        source: Iterable[Any] = getattr(sys.stdin, "buffer", sys.stdin)
        for line in source:
            if self.stopped:
                return
            yield (line.encode() if isinstance(line, str) else line).rstrip(b"\r\n")

    def _sender(self, name: str, topic: str, common: dict[str, Any]) -> Callable[[bytes], Any]:
        """What sends a value and returns a future, or None where there is nothing to wait for."""
        alias = pools.alias(name)
        captured = capture_of(alias.settings.backend)
        if captured is not None:
            return lambda value: captured.add(encoded(name, {}, topic, value=value, **common))
        producer = alias.producer(encoded=True)
        return lambda value: producer.send(topic, value=value, **common)


def _wait(futures: list[Any]) -> None:
    """Until all are acknowledged; raises the first error. Empties the list."""
    for future in futures:
        if future is not None:
            future.get()
    futures.clear()


def _header(given: str) -> tuple[str, bytes]:
    name, separator, value = given.partition("=")
    if not separator or not name:
        raise CommandError(f"--header {given!r} must be NAME=VALUE")
    return name, value.encode()
