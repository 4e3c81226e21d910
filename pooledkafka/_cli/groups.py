"""``pooledkafka groups``."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import click
from kafka.structs import TopicPartition

from pooledkafka._cli.connecting import TIMEOUT_OPTION, cluster_options, connected
from pooledkafka._cli.coordinated import described_group
from pooledkafka._cli.output import JSON_OPTION, print_json, print_table, progress
from pooledkafka.admin import Admin
from pooledkafka.consumer import Consumer

__all__ = ["groups"]


@click.group()
def groups() -> None:
    """List consumer groups, and how far they lag."""


@groups.command("list")
@cluster_options()
@TIMEOUT_OPTION
@JSON_OPTION
def list_groups(options: dict[str, Any], timeout: float, as_json: bool) -> None:
    """List all groups.

    \b
    Example:
      pooledkafka groups list -b kafka.example:9092
    """
    with connected(options, timeout) as pool, closing(Admin(connection_pool=pool)) as admin:
        listed = sorted(admin.list_groups(), key=lambda each: str(each["group_id"]))
    rows = [
        {"group": each["group_id"], "protocol": each["protocol_type"], "state": each.get("group_state") or ""}
        for each in listed
    ]
    if as_json:
        print_json(rows)
    elif rows:
        print_table(list(rows[0]), [list(row.values()) for row in rows])


@groups.command()
@click.argument("names", metavar="GROUP...", nargs=-1, required=True)
@cluster_options()
@TIMEOUT_OPTION
@JSON_OPTION
@click.pass_context
def describe(
    context: click.Context, names: tuple[str, ...], options: dict[str, Any], timeout: float, as_json: bool
) -> None:
    """Show the members of groups, what they have committed, and how far that is behind.

    The lag of a partition is the number of offsets between what is committed and the end of its log; there is none
    where nothing is committed. The exit code is 1 where a group does not exist.

    \b
    Example:
      pooledkafka groups describe billing -b kafka.example:9092
    """
    found: dict[str, dict[str, Any]] = {}
    with (
        connected(options, timeout) as pool,
        closing(Admin(connection_pool=pool)) as admin,
        Consumer(connection_pool=pool) as consumer,
        progress() as shown,
    ):
        for name in shown.track(list(dict.fromkeys(names)), description="groups"):
            found[name] = _described(admin, consumer, name, timeout * 1000)
    if as_json:
        print_json(found)
    else:
        for name, group in found.items():
            _show(name, group)
    missing = [name for name, group in found.items() if group["state"] == "Dead" and not group["partitions"]]
    for name in missing:
        click.echo(f"there is no group {name!r}", err=True)
    context.exit(1 if missing else 0)


def _described(admin: Any, consumer: Consumer, name: str, timeout_ms: float) -> dict[str, Any]:
    group = described_group(admin, name, timeout_ms)
    if group["error"] and group["group_state"] != "Dead":
        raise click.ClickException(f"group {name!r}: {group['error']}")
    owners = {each: member for member in group["members"] for each in _assigned(member)}
    committed = {
        partition: found.offset
        for partition, found in admin.list_group_offsets({name: None})[name].items()
        if found.offset >= 0
    }
    partitions = sorted({*committed, *owners})
    ends = consumer.end_offsets(partitions) if partitions else {}
    return {
        "state": group["group_state"],
        "members": [
            {"id": each["member_id"], "client_id": each["client_id"], "host": each["client_host"]}
            for each in group["members"]
        ],
        "lag": sum(max(0, ends[each] - offset) for each, offset in committed.items()),
        "partitions": [
            {
                "topic": each.topic,
                "partition": each.partition,
                "committed": committed.get(each),
                "end": ends[each],
                "lag": None if each not in committed else max(0, ends[each] - committed[each]),
                "client_id": owners[each]["client_id"] if each in owners else None,
                "host": owners[each]["client_host"] if each in owners else None,
            }
            for each in partitions
        ],
    }


def _assigned(member: dict[str, Any]) -> list[TopicPartition]:
    assignment = member["member_assignment"]
    if not isinstance(assignment, dict):  # of members that are no consumers
        return []
    return [
        TopicPartition(each["topic"], partition)
        for each in assignment["assigned_partitions"]
        for partition in each["partitions"]
    ]


def _show(name: str, group: dict[str, Any]) -> None:
    click.echo(f"{name}: {group['state']}, {len(group['members'])} members, lag {group['lag']}")
    if group["partitions"]:
        print_table(list(group["partitions"][0]), [list(row.values()) for row in group["partitions"]])
