"""What goes into the multiplexer and what comes out of it.

Names and meanings are those of Kafka's Fetch request and response.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple, Protocol

from kafka.structs import TopicPartition

__all__ = ["Limits", "Line", "LogicalFetch", "PartitionAnswer", "Position", "Step", "WireFetch"]


class Position(NamedTuple):
    """From where a partition is to be read: what a Fetch request says of one partition."""

    fetch_offset: int
    current_leader_epoch: int = -1
    """The leader epoch that the reader's metadata has; the broker fences an older one (KIP-320)."""
    last_fetched_epoch: int = -1
    """The epoch of the record before ``fetch_offset``, by which the broker notices a divergence (KIP-595)."""
    partition_max_bytes: int = 1_048_576


class PartitionAnswer(Protocol):
    """What a Fetch response says of one partition; kafka-python's object is passed through whole."""

    error_code: int
    high_watermark: int
    last_stable_offset: int
    preferred_read_replica: int
    diverging_epoch: Any
    aborted_transactions: Any
    records: Any


@dataclass(eq=False)
class LogicalFetch:
    """One consumer's Fetch: answered from what was read for all, and never forwarded as it is."""

    reader: int
    """Which consumer asks; it has one fetch at a time with a broker."""
    partitions: dict[TopicPartition, Position]
    deadline: float
    """When it is answered even without data, in seconds of the multiplexer's clock."""
    min_bytes: int = 1
    max_bytes: int = 52_428_800
    patient: bool = False
    """Whether it goes on waiting after its deadline while there is nothing to tell; ``release`` ends that."""
    context: Any = None
    """The caller's, untouched."""


class Line(Enum):
    """Which of the broker's two fetch connections a request goes on."""

    PARKED = "parked"
    CATCH_UP = "catch-up"


@dataclass(eq=False)
class WireFetch:
    """A Fetch to send to the broker; to be given back to ``answered`` or ``failed``."""

    line: Line
    partitions: dict[TopicPartition, Position]
    """All that it asks for; for reading, and only until it is answered or has failed."""
    max_wait_ms: int
    max_bytes: int
    changed: dict[TopicPartition, Position] = field(default_factory=dict)
    """Of the parked one's: what the one before did not ask for, or not so; for an incremental session (KIP-227)."""
    forgotten: list[TopicPartition] = field(default_factory=list)
    """What the parked one before asked for and this one does not."""
    streams: list[Any] = field(default_factory=list, repr=False)
    """The multiplexer's own."""


class Step(NamedTuple):
    """What is to be done after events were fed in."""

    requests: list[WireFetch]
    completions: list[tuple[LogicalFetch, dict[TopicPartition, PartitionAnswer]]]
    wake_at: float | None
    """When to call ``step`` again, even if nothing happens before."""


@dataclass(frozen=True)
class Limits:
    """How much is read ahead, and how long is waited; times in seconds."""

    parked_wait_ms: int = 500
    calm_wait_ms: int = 2_000
    calm_after: int = 8
    """So long the parked request waits after so many answers in a row with nothing, to the same question. Who comes to
    an end meanwhile is caught up with until it is back, at a cost: where many come, it is not to wait long."""
    catch_up_wait_ms: int = 50
    """For readers at the end that the parked fetch does not cover yet."""
    max_bytes: int = 52_428_800
    idle_s: float = 10.0
    """A reader that has not asked for a partition this long no longer has it read ahead."""
    retry_s: float = 0.05
    retry_max_s: float = 1.0
    """Backoff of a partition in error, and of a connection that failed."""
    breath_s: float = 0.02
    """Before this, a reader that does not wait is not told that there is nothing since the broker cannot be reached."""
    apart: int = 8
    """How many times ``partition_max_bytes`` readers of a partition may be apart and still be served together."""
    catch_up_partitions: int = 500
    parked_additions: int = 1_000
    """Partitions that a request names at most, so that nobody waits long while it is built, sent and served."""
