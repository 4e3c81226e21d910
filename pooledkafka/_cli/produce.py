"""``pooledkafka produce``."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from typing import Any

import click

from pooledkafka._cli.connecting import TIMEOUT_OPTION, cluster_options, connected
from pooledkafka._cli.output import JSON_OPTION, print_json, progress
from pooledkafka._cli.topics import describe_topics
from pooledkafka.producer import Producer

__all__ = ["produce"]

_AT_ONCE = 1_000
"""How many records may wait for their acknowledgements."""


@click.command()
@click.argument("topic")
@cluster_options()
@TIMEOUT_OPTION
@click.option("--value", help="One record with this value. Default: a record for each line of stdin.")
@click.option("--key", help="The key of all records.")
@click.option("--key-separator", metavar="TEXT", help="What ends the key at the beginning of each line.")
@click.option("--header", "headers", multiple=True, metavar="NAME=VALUE", help="A header of all records; repeatable.")
@click.option("--partition", type=click.IntRange(min=0), help="Default: as the key chooses.")
@click.option("--create", is_flag=True, help="Let the brokers create the topic, where they are configured to.")
@JSON_OPTION
def produce(
    topic: str,
    options: dict[str, Any],
    timeout: float,
    value: str | None,
    key: str | None,
    key_separator: str | None,
    headers: tuple[str, ...],
    partition: int | None,
    create: bool,
    as_json: bool,
) -> None:
    """Send a record for each line of stdin, and wait until all are acknowledged.

    Lines are sent as they are, without their ends. Each is sent when it is there, so that what writes them may take
    its time. The exit code is 1 where a record was not acknowledged.

    \b
    Examples:
      echo hello | pooledkafka produce orders -b kafka.example:9092
      pooledkafka produce orders --key-separator : --header source=import < lines.txt
    """
    if key is not None and key_separator is not None:
        raise click.UsageError("--key and --key-separator exclude each other")
    if key_separator == "":
        raise click.UsageError("--key-separator may not be empty")
    common: dict[str, Any] = {"headers": [_header(each) for each in headers], "partition": partition}
    lines = _lines() if value is None else iter([value.encode(errors="surrogateescape")])
    waiting: deque[Any] = deque()
    sent = 0
    with (
        connected({**options, "allow_auto_create_topics": create}, timeout) as pool,
        Producer(connection_pool=pool) as producer,
        progress(beside=sys.stdin) as shown,
    ):
        if not create:
            describe_topics(pool, [topic])  # one that does not exist would be waited for
        task = shown.add_task("records sent", total=None)
        for line in lines:
            text, of_record = line, None if key is None else key.encode(errors="surrogateescape")
            if key_separator is not None:
                of_record, text = _cut(line, key_separator)
            waiting.append(producer.send(topic, text, key=of_record, **common))
            sent += 1
            shown.update(task, completed=sent)
            if len(waiting) >= _AT_ONCE:
                waiting.popleft().get()
        while waiting:
            waiting.popleft().get()
    if as_json:
        print_json({"topic": topic, "sent": sent})
    else:
        click.echo(f"{sent} {'record' if sent == 1 else 'records'} sent to {topic}", err=True)


def _lines() -> Iterator[bytes]:
    for line in sys.stdin.buffer:
        yield line.removesuffix(b"\n").removesuffix(b"\r")


def _cut(line: bytes, separator: str) -> tuple[bytes, bytes]:
    key, found, value = line.partition(separator.encode(errors="surrogateescape"))
    if not found:
        raise click.ClickException(f"there is no {separator!r} in the line {line.decode(errors='replace')!r}")
    return key, value


def _header(given: str) -> tuple[str, bytes]:
    name, separator, value = given.partition("=")
    if not separator or not name:
        raise click.UsageError(f"--header {given!r} must be NAME=VALUE")
    return name, value.encode(errors="surrogateescape")
