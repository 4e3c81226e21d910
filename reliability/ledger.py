"""Compares what was acknowledged, what the log holds and what every group read."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from reliability.fault_clients import PARTITIONS, Case, group_id
from reliability.kept_commits import KeptCommits
from reliability.notes import read_notes
from reliability.topic_log import records_of

__all__ = ["Findings", "Log", "Series", "check", "read_log"]

Entry = tuple[int, int]
"""Which producer's, and its number among that producer's records in the partition."""
Log = dict[int, dict[int, Entry]]
"""Entries by partition and offset."""
Series = dict[Any, list[float]]
"""When something succeeded, ascending, by whose it was."""

_SHOWN = 5


@dataclass
class Findings:
    """What the comparison showed of one library."""

    acknowledged: int = 0
    read: int = 0
    failed: Counter[str] = field(default_factory=Counter)  # sends, by their error
    failed_but_written: int = 0
    errors: Counter[str] = field(default_factory=Counter)  # all else that users saw, by call and error
    commits_gone: int = 0  # acknowledged, and not in the brokers' log
    redelivered: int = 0  # where Kafka allows it: after a rebalance, from the last committed offset on

    lost: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    written_twice: list[str] = field(default_factory=list)
    out_of_order: list[str] = field(default_factory=list)
    read_wrongly: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)  # though it was committed

    acks: Series = field(default_factory=lambda: defaultdict(list))  # by (producer, partition)
    reads: Series = field(default_factory=lambda: defaultdict(list))  # by (group, partition)
    reads_by_consumer: Series = field(default_factory=dict)

    @property
    def broken(self) -> dict[str, list[str]]:
        """What must not be, by its name; the names of what did not happen too."""
        return {
            "acknowledged and lost": self.lost,
            "acknowledged and not read by a group": self.unread,
            "written twice": self.written_twice,
            "written out of order": self.out_of_order,
            "read wrongly or out of order": self.read_wrongly,
            "read again though committed": self.repeated,
        }


def read_log(options: Mapping[str, Any], topic: str) -> Log:
    """All that the topic holds."""
    log: Log = {partition: {} for partition in range(PARTITIONS)}
    for record in records_of(options, topic):
        producer, number = record.value.split()
        log[record.partition][record.offset] = (int(producer), int(number))
    return log


def check(case: Case, log: Log, kept: KeptCommits | None) -> Findings:
    """Compare the notes of a library's clients with the log, and with each other; ``kept`` None: it is not known."""
    directory = Path(case.directory)
    findings = Findings()
    failed: set[tuple[int, Entry]] = set()  # by partition
    for path in sorted(directory.glob("producer-*")):
        check_producer(path, log, findings, failed)
    check_log(log, failed, findings)
    groups: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(directory.glob("consumer-*")):
        groups[path.name.split("-")[1]].append(path)
    for group, paths in groups.items():
        check_group(group, paths, case, log, kept, findings)
    for times in findings.reads.values():
        times.sort()
    return findings


def check_log(log: Log, failed: set[tuple[int, Entry]], findings: Findings) -> None:
    """Each record once, and those of one producer in the order of their numbers.

    One whose send has failed may be there all the same, and then it may come late.
    """
    for partition, entries in log.items():
        last: dict[int, int] = {}
        seen: set[Entry] = set()
        for offset, (producer, number) in sorted(entries.items()):
            what = f"record {number} of producer {producer} at offset {offset} of partition {partition}"
            if (producer, number) in seen:
                findings.written_twice.append(what)
            seen.add((producer, number))
            if (partition, (producer, number)) in failed:
                continue
            if number < last.get(producer, -1):
                findings.out_of_order.append(f"{what}, after {last[producer]}")
            last[producer] = max(number, last.get(producer, -1))


def check_producer(path: Path, log: Log, findings: Findings, failed: set[tuple[int, Entry]]) -> None:
    """What it was told is acknowledged is in the log, and where it was told so."""
    producer = int(path.name.split("-")[1])
    written = {
        (partition, number) for partition, entries in log.items() for by, number in entries.values() if by == producer
    }
    for what, at, *fields in read_notes(path):
        if what == "error":
            findings.errors[f"{fields[0]}: {shortened(fields[1])}"] += 1
            continue
        partition, number = int(fields[0]), int(fields[1])
        if what == "failed":
            findings.failed[shortened(fields[3])] += 1
            findings.failed_but_written += (partition, number) in written
            failed.add((partition, (producer, number)))
            continue
        offset = int(fields[3])
        findings.acknowledged += 1
        findings.acks[producer, partition].append(float(at))
        # An acknowledgement of what the broker had already taken once may not say where.
        kept = log[partition].get(offset) == (producer, number) if offset >= 0 else (partition, number) in written
        if not kept:
            findings.lost.append(f"record {number} of producer {producer}, offset {offset} of partition {partition}")


def check_group(
    group: str, paths: list[Path], case: Case, log: Log, kept: KeptCommits | None, findings: Findings
) -> None:
    """Every record of the log was read by some member, and by each in order from where the group had committed."""
    read: dict[int, set[int]] = {partition: set() for partition in log}
    committed: dict[int, list[tuple[float, int]]] = {partition: [] for partition in log}
    starts: list[tuple[float, int, int, str]] = []
    for path in paths:
        check_consumer(path, group, log, findings, read, committed, starts)
    if kept is not None:
        name = group_id(case.library, group)
        for partition, commits in committed.items():
            there = [commit for commit in commits if (name, case.topic, partition, commit[1]) in kept]
            findings.commits_gone += len(commits) - len(there)
            committed[partition] = there
    for at, partition, offset, member in starts:
        before = max((end for when, end in committed[partition] if when < at), default=0)
        if offset < before:
            findings.repeated.append(
                f"{member} began at offset {offset} of partition {partition}, committed was {before}"
            )
    for partition, entries in log.items():
        findings.unread += [
            f"record {entries[offset]} at offset {offset} of partition {partition}, by group {group}"
            for offset in sorted(entries.keys() - read[partition])
        ]


def check_consumer(
    path: Path,
    group: str,
    log: Log,
    findings: Findings,
    read: dict[int, set[int]],
    committed: dict[int, list[tuple[float, int]]],
    starts: list[tuple[float, int, int, str]],
) -> None:
    """From the moment a member is given a partition it reads one offset after the other, and what is there."""
    gained_at: dict[int, float] = {}  # partitions of which nothing has been read since
    due: dict[int, int] = {}  # the offset that must come next
    times = findings.reads_by_consumer.setdefault(path.name, [])
    for what, when, *fields in read_notes(path):
        at = float(when)
        if what == "error":
            findings.errors[f"{fields[0]}: {shortened(fields[1])}"] += 1
        elif what == "committed":
            for part in fields:
                partition, end = map(int, part.split(":"))
                committed[partition].append((at, end))
        elif what == "gained":
            gained_at.update((int(partition), at) for partition in fields if partition)
        elif what == "read":
            partition, offset, producer, number = map(int, fields)
            findings.read += 1
            findings.redelivered += offset in read[partition]
            read[partition].add(offset)
            findings.reads[group, partition].append(at)
            times.append(at)
            where = f"{path.name} at {at:.3f}: offset {offset} of partition {partition}"
            if log[partition].get(offset) != (producer, number):
                findings.read_wrongly.append(f"{where} was {producer, number}, but is {log[partition].get(offset)}")
            if partition in gained_at:
                starts.append((gained_at.pop(partition), partition, offset, path.name))
            elif offset != due.get(partition):
                findings.read_wrongly.append(f"{where} where {due.get(partition)} was due")
            due[partition] = offset + 1


def shortened(error: str) -> str:
    """The kind of an error and the beginning of what it says, without what is different each time."""
    return "".join("#" if character.isdigit() else character for character in error)[:100]
