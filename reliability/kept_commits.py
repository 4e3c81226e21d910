"""What the brokers have kept of the commits that they acknowledged.

Where a group goes back behind a commit, it is its client's fault only if the brokers still have that commit: on brokers
that could hardly keep up, one that was then cut off was seen to have acknowledged ten seconds of commits of which the
next coordinator had none.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from reliability.topic_log import records_of

__all__ = ["KeptCommits", "read_commits"]

KeptCommits = set[tuple[str, str, int, int]]
"""Group, topic, partition and offset."""

_OFFSETS_TOPIC = "__consumer_offsets"
_COMMIT_KEYS = (0, 1)  # the versions of a key that is no group's membership


def read_commits(options: Mapping[str, Any]) -> KeptCommits:
    """All commits in the log of the offsets' topic, which is compacted only after many times a scenario's length."""
    return {
        commit
        for record in records_of(options, _OFFSETS_TOPIC)
        if (commit := decoded(record.key, record.value)) is not None
    }


def decoded(key: bytes, value: bytes | None) -> tuple[str, str, int, int] | None:
    (version,) = struct.unpack_from(">h", key)
    if version not in _COMMIT_KEYS or value is None:
        return None
    group, at = string_at(key, 2)
    topic, at = string_at(key, at)
    (partition,) = struct.unpack_from(">i", key, at)
    (offset,) = struct.unpack_from(">q", value, 2)  # in every version of the value
    return group, topic, partition, offset


def string_at(data: bytes, at: int) -> tuple[str, int]:
    (length,) = struct.unpack_from(">h", data, at)
    end = at + 2 + length
    return data[at + 2 : end].decode(), end
