"""What many clients in one process cost: consumers that wait, and members of groups that start together."""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks.cases import Plan, Topic
from benchmarks.groups import GroupsCase
from benchmarks.waiting import WaitingCase

__all__ = ["QUICK", "add_options", "plan"]

PARTITIONS = 6
GROUP_PARTITIONS = 20  # at least; each member must be able to get one
QUICK: dict[str, Any] = {
    "consumers": [1, 3],
    "members": [3],
    "together": 2,
    "settle": 0.5,
    "idle": 0.5,
    "load": 1.0,
    "within": 15.0,
}


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--consumers", type=int, nargs="*", default=[1, 50], help="how many wait; one case for each number")
    add("--members", type=int, nargs="*", default=[3, 20], help="sizes of the group; one case for each number")
    add("--together", type=int, default=10, help="how many groups of the smallest size start together; 0: no such case")
    add("--producers", type=int, default=1, help="how many send in turn")
    add("--rate", type=float, default=150.0, help="records a second, of all producers together")
    add("--load", type=float, default=20.0, help="seconds of sending")
    add("--settle", type=float, default=8.0, help="seconds after the start before anything but time is measured")
    add("--idle", type=float, default=8.0, help="seconds over which idle CPU is measured")
    add("--within", type=float, default=30.0, help="seconds to wait for partitions, and for balance")


def plan(arguments: argparse.Namespace, name: str) -> Plan:
    """The cases of one round, on topics whose names begin with ``name``."""
    if min([*arguments.consumers, *arguments.members, arguments.producers], default=1) < 1:
        raise argparse.ArgumentTypeError("consumers, members and producers are counts from 1 on")
    if arguments.rate * arguments.load < 100:
        raise argparse.ArgumentTypeError(
            "--rate times --load is the number of records; of less than 100 there is no p99"
        )
    group_partitions = max([GROUP_PARTITIONS, *arguments.members])
    sizes = [(1, members) for members in arguments.members]
    if arguments.members and arguments.together:
        sizes.append((arguments.together, min(arguments.members)))
    done = Plan()
    if arguments.consumers:
        done.topics += [Topic(f"{name}-wait", PARTITIONS), Topic(f"{name}-probe", PARTITIONS)]
    if sizes:
        done.topics.append(Topic(f"{name}-group", group_partitions))
    done.cases += [
        WaitingCase(
            topic=f"{name}-wait",
            partitions=PARTITIONS,
            consumers=consumers,
            probe_topic=f"{name}-probe",
            producers=arguments.producers,
            within_s=arguments.within,
            settle_s=arguments.settle,
            idle_s=arguments.idle,
            load_s=arguments.load,
            rate=arguments.rate,
        )
        for consumers in arguments.consumers
    ]
    done.cases += [
        GroupsCase(
            topic=f"{name}-group",
            partitions=group_partitions,
            groups=groups,
            members=members,
            within_s=arguments.within,
            settle_s=min(2.0, arguments.settle),
        )
        for groups, members in sizes
    ]
    return done
