"""``pooledkafka consume``."""

from __future__ import annotations

import base64
import json
import string
import sys
from collections.abc import Callable
from typing import Any

import click
from kafka.structs import TopicPartition

from pooledkafka._cli.connecting import TIMEOUT_OPTION, cluster_options, connected
from pooledkafka._cli.output import JSON_OPTION, progress
from pooledkafka._cli.topics import describe_topics
from pooledkafka.consumer import Consumer
from pooledkafka.pool import ConnectionPool

__all__ = ["consume"]

_POLL_MS = 200
_FIELDS = ("topic", "partition", "offset", "timestamp", "key", "value", "headers")


@click.command()
@click.argument("topic")
@cluster_options()
@TIMEOUT_OPTION
@click.option("--from-beginning", is_flag=True, help="All records there are. Default: those that come from now on.")
@click.option("--partition", "partitions", type=click.IntRange(min=0), multiple=True, help="Only this; repeatable.")
@click.option("--offset", type=int, help="From this offset on in each partition; -N: the last N of each.")
@click.option("--max", "most", type=click.IntRange(min=1), metavar="N", help="End after so many records.")
@click.option("--until-end", is_flag=True, help="End with what was there when the command began.")
@click.option("--group", metavar="NAME", help="As a member of this group, whose offsets are committed.")
@click.option(
    "--format",
    "shape",
    metavar="TEXT",
    help="How to write a record: {topic}, {partition}, {offset}, {timestamp} (ms), {key}, {value}, {headers}. "
    "Default: {value}.",
)
@JSON_OPTION
def consume(
    topic: str,
    options: dict[str, Any],
    timeout: float,
    from_beginning: bool,
    partitions: tuple[int, ...],
    offset: int | None,
    most: int | None,
    until_end: bool,
    group: str | None,
    shape: str | None,
    as_json: bool,
) -> None:
    """Write the records of a topic to stdout, a line each.

    Values are written as they are. With --json each line is an object; keys, values and headers that are no UTF-8 are
    objects with "base64" there. Runs until it is interrupted, unless --max or --until-end says otherwise.

    \b
    Examples:
      pooledkafka consume orders --from-beginning --max 10 -b kafka.example:9092
      pooledkafka consume orders --offset -1 --format '{partition} {offset} {key} {value}'
      pooledkafka consume orders --from-beginning --until-end --json | jq .value
    """
    if group is not None and (partitions or offset is not None or until_end):
        raise click.UsageError("--group excludes --partition, --offset and --until-end")
    if from_beginning and offset is not None:
        raise click.UsageError("--from-beginning and --offset exclude each other")
    if as_json and shape is not None:
        raise click.UsageError("--json and --format exclude each other")
    write = _as_json if as_json else _formatted(shape) if shape is not None else _value
    reset = "earliest" if from_beginning else "latest"
    with (
        connected(options, timeout) as pool,
        Consumer(connection_pool=pool, group_id=group, auto_offset_reset=reset) as consumer,
    ):
        ends: dict[TopicPartition, int] | None = None
        if group is not None:
            describe_topics(pool, [topic])  # one that does not exist would be waited for
            consumer.subscribe([topic])
        else:
            assigned = _assign(pool, consumer, topic, partitions)
            if offset is not None:
                _seek(consumer, assigned, offset)
            elif from_beginning:
                consumer.seek_to_beginning(*assigned)
            if until_end:
                ends = consumer.end_offsets(assigned)
        _write(consumer, ends, most, write)


def _assign(pool: ConnectionPool, consumer: Consumer, topic: str, partitions: tuple[int, ...]) -> list[TopicPartition]:
    (described,) = describe_topics(pool, [topic])
    there = [each["partition_index"] for each in described["partitions"]]
    if missing := sorted(set(partitions).difference(there)):
        raise click.ClickException(
            f"topic {topic!r} has no partition {missing[0]}; it has {len(there)}, from 0 to {max(there)}"
        )
    assigned = [TopicPartition(topic, number) for number in sorted(set(partitions) or there)]
    consumer.assign(assigned)
    return assigned


def _seek(consumer: Consumer, assigned: list[TopicPartition], offset: int) -> None:
    first, end = consumer.beginning_offsets(assigned), consumer.end_offsets(assigned)
    for each in assigned:
        wanted = offset if offset >= 0 else end[each] + offset
        consumer.seek(each, min(max(wanted, first[each]), end[each]))


def _write(
    consumer: Consumer, ends: dict[TopicPartition, int] | None, most: int | None, write: Callable[[Any], bytes]
) -> None:
    stdout = sys.stdout.buffer
    total = most if ends is None else sum(max(0, end - (consumer.position(each) or 0)) for each, end in ends.items())
    written = 0
    with progress(beside=sys.stdout) as shown:
        task = shown.add_task("records", total=total)
        while (most is None or written < most) and not _is_over(consumer, ends):
            polled = consumer.poll(_POLL_MS)
            try:
                for partition, records in polled.items():
                    for record in records:
                        if ends is not None and record.offset >= ends[partition]:
                            break
                        if most is not None and written >= most:
                            consumer.seek(partition, record.offset)  # so that it is not committed by its group
                            break
                        stdout.write(write(record) + b"\n")
                        written += 1
                stdout.flush()
            except BaseException:  # nobody reads on, the disk is full, Ctrl-C: nor are these, not all of them written
                for partition, records in polled.items():
                    consumer.seek(partition, records[0].offset)
                raise
            shown.update(task, completed=written)


def _is_over(consumer: Consumer, ends: dict[TopicPartition, int] | None) -> bool:
    return ends is not None and all((consumer.position(each) or 0) >= end for each, end in ends.items())


def _value(record: Any) -> bytes:
    return record.value or b""


def _as_json(record: Any) -> bytes:
    found = {name: getattr(record, name) for name in _FIELDS}
    found["key"], found["value"] = _text(record.key), _text(record.value)
    found["headers"] = [[name, _text(value)] for name, value in record.headers]
    return json.dumps(found, ensure_ascii=False).encode()


def _text(data: bytes | None) -> Any:
    if data is None:
        return None
    try:
        return data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}


def _formatted(shape: str) -> Callable[[Any], bytes]:
    try:
        fields = {name for _, name, _, _ in string.Formatter().parse(shape) if name is not None}
    except ValueError as error:
        raise click.UsageError(f"--format {shape!r}: {error}") from None
    if unknown := sorted(fields.difference(_FIELDS)):
        raise click.UsageError(
            f"--format has {{{unknown[0]}}}; there are {', '.join(f'{{{each}}}' for each in _FIELDS)}"
        )
    numbers = {"partition", "offset", "timestamp"}
    try:
        shape.format(**{name: 0 if name in numbers else "" for name in fields})
    except (ValueError, LookupError) as error:  # a way to write it that its kind has not
        raise click.UsageError(f"--format {shape!r}: {error}") from None

    def write(record: Any) -> bytes:
        found = {name: getattr(record, name) for name in fields}
        for name in fields & {"key", "value"}:
            found[name] = (found[name] or b"").decode(errors="backslashreplace")
        if "headers" in fields:
            found["headers"] = ",".join(
                f"{name}={(value or b'').decode(errors='backslashreplace')}" for name, value in record.headers
            )
        return shape.format(**found).encode(errors="surrogateescape")

    return write
