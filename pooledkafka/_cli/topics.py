"""``pooledkafka topics``."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Any

import click
from kafka.errors import for_code
from kafka.structs import TopicPartition

from pooledkafka._cli.connecting import TIMEOUT_OPTION, cluster_options, connected
from pooledkafka._cli.output import JSON_OPTION, print_json, print_table
from pooledkafka._cli.reasons import advice_on
from pooledkafka.admin import Admin
from pooledkafka.consumer import Consumer
from pooledkafka.pool import ConnectionPool

__all__ = ["describe_topics", "topics"]


@click.group()
def topics() -> None:
    """List topics, and what they are made of."""


@topics.command("list")
@cluster_options()
@TIMEOUT_OPTION
@click.option("--internal", is_flag=True, help="Also those that Kafka keeps for itself.")
@JSON_OPTION
def list_topics(options: dict[str, Any], timeout: float, internal: bool, as_json: bool) -> None:
    """List all topics.

    \b
    Example:
      pooledkafka topics list -b kafka.example:9092
    """
    with connected(options, timeout) as pool:
        described = [topic for topic in describe_topics(pool, None) if internal or not topic["is_internal"]]
    rows = [
        {
            "topic": topic["name"],
            "partitions": len(topic["partitions"]),
            "replicas": max((len(each["replica_nodes"]) for each in topic["partitions"]), default=0),
        }
        for topic in described
    ]
    if as_json:
        print_json(rows)
    elif rows:
        print_table(list(rows[0]), [list(row.values()) for row in rows])


@topics.command()
@click.argument("names", metavar="TOPIC...", nargs=-1, required=True)
@cluster_options()
@TIMEOUT_OPTION
@JSON_OPTION
def describe(names: tuple[str, ...], options: dict[str, Any], timeout: float, as_json: bool) -> None:
    """Show the partitions of topics: their leaders, replicas, and which of those are in sync.

    \b
    Example:
      pooledkafka topics describe orders -b kafka.example:9092
    """
    with connected(options, timeout) as pool:
        described = describe_topics(pool, names)
    found = {topic["name"]: [_partition(each) for each in topic["partitions"]] for topic in described}
    if as_json:
        print_json(found)
        return
    for name, partitions in found.items():
        rows = [
            [each["partition"], each["leader"], _listed(each["replicas"]), _listed(each["in_sync"])]
            for each in partitions
        ]
        click.echo(name)
        print_table(["partition", "leader", "replicas", "in sync"], rows)


@topics.command()
@click.argument("names", metavar="TOPIC...", nargs=-1, required=True)
@cluster_options()
@TIMEOUT_OPTION
@JSON_OPTION
def offsets(names: tuple[str, ...], options: dict[str, Any], timeout: float, as_json: bool) -> None:
    """Show where the logs of topics begin and end.

    The difference is the number of records, but for those that compaction or transactions have taken the place of.

    \b
    Example:
      pooledkafka topics offsets orders --json -b kafka.example:9092
    """
    with connected(options, timeout) as pool:
        described = describe_topics(pool, names)
        partitions = [
            TopicPartition(topic["name"], each["partition_index"])
            for topic in described
            for each in topic["partitions"]
        ]
        with Consumer(connection_pool=pool) as consumer:
            first, end = consumer.beginning_offsets(partitions), consumer.end_offsets(partitions)
    rows = [
        {
            "topic": each.topic,
            "partition": each.partition,
            "first": first[each],
            "end": end[each],
            "difference": end[each] - first[each],
        }
        for each in partitions
    ]
    if as_json:
        print_json(rows)
    elif rows:
        print_table(list(rows[0]), [list(row.values()) for row in rows])


def describe_topics(pool: ConnectionPool, names: Sequence[str] | None) -> list[dict[str, Any]]:
    """What the cluster says of these topics, or of all, by name, with their partitions in order.

    Raises:
        click.ClickException: one of these does not exist, or may not be described.
    """
    with closing(Admin(connection_pool=pool)) as admin:
        described: list[dict[str, Any]] = admin.describe_topics(None if names is None else list(dict.fromkeys(names)))
    for topic in described:
        if names is not None and topic["error_code"]:
            cause, advice = advice_on(for_code(topic["error_code"])(), f"topic {topic['name']!r}")
            raise click.ClickException(f"{cause}. {advice}." if advice else cause)
        topic["partitions"].sort(key=lambda each: each["partition_index"])
    return sorted(described, key=lambda topic: str(topic["name"]))


def _partition(described: dict[str, Any]) -> dict[str, Any]:
    return {
        "partition": described["partition_index"],
        "leader": described["leader_id"],
        "replicas": described["replica_nodes"],
        "in_sync": described["isr_nodes"],
    }


def _listed(nodes: Sequence[int]) -> str:
    return ", ".join(map(str, nodes))
