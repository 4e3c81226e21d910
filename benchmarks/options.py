"""The options that all libraries are given, said once, with kafka-python's names; and how the others call them."""

from __future__ import annotations

from typing import Any

__all__ = ["CONSUMER", "POLL_RECORDS", "POLL_S", "PRODUCER", "for_aiokafka", "for_confluent", "streaming", "window"]

POLL_S = 0.2
"""How long each call of poll() may wait."""
POLL_RECORDS = 500
"""How many records a poll returns at most, where records are read as fast as can be."""

CONSUMER: dict[str, Any] = {
    "fetch_max_wait_ms": 500,
    "fetch_min_bytes": 1,
    "auto_offset_reset": "latest",
    "enable_auto_commit": True,
    "auto_commit_interval_ms": 5_000,
    "session_timeout_ms": 45_000,
    "heartbeat_interval_ms": 3_000,
    "check_crcs": True,
}
"""kafka-python's defaults, because librdkafka's differ. All assign partitions by range."""

DURABLE: dict[str, Any] = {"acks": "all", "enable_idempotence": True}
"""kafka-python's defaults, and never given up: fewer guarantees would be another benchmark."""
PRODUCER: dict[str, Any] = {**DURABLE, "linger_ms": 0}
"""For latency: each record leaves at once, as is kafka-python's default."""
STREAMING: dict[str, Any] = {**DURABLE, "linger_ms": 5, "batch_size": 131_072}
"""For throughput: librdkafka's default linger, and batches that are worth a request."""

CONFLUENT_NAMES = {"fetch_max_wait_ms": "fetch.wait.max.ms"}
"""Where it is not the same with dots."""
AIOKAFKA_NAMES = {"batch_size": "max_batch_size"}

WINDOW_RECORDS = 100_000  # librdkafka's default queue
WINDOW_BYTES = 64_000_000


def streaming(which: str, codec: str) -> dict[str, Any]:
    """A producer's options: "same" for all libraries, or each library's own "defaults", but for what is durable."""
    options = STREAMING if which == "same" else DURABLE
    return options if codec == "none" else {**options, "compression_type": codec}


def window(size: int) -> int:
    """How many records of that size may wait for their acknowledgement, so that memory is bounded, and alike."""
    return max(1, min(WINDOW_RECORDS, WINDOW_BYTES // size))


def for_confluent(options: dict[str, Any]) -> dict[str, Any]:
    return {CONFLUENT_NAMES.get(name, name.replace("_", ".")): value for name, value in options.items()}


def for_aiokafka(options: dict[str, Any]) -> dict[str, Any]:
    return {AIOKAFKA_NAMES.get(name, name): value for name, value in options.items()}
