"""A record on its way to a producer: as it was given, and as it is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pooledkafka._wire import as_serializer

__all__ = ["Message", "encoded"]


@dataclass(frozen=True)
class Message:
    """What somebody sends."""

    topic: str
    value: Any = None
    """As it was given, before any serializer."""
    key: Any = None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    partition: int | None = None
    timestamp_ms: int | None = None
    alias: str = "default"
    value_bytes: bytes | None = field(default=None, repr=False)
    key_bytes: bytes | None = field(default=None, repr=False)
    source: str = "producer"
    """``producer`` or ``outbox``."""

    def as_sent(self) -> dict[str, Any]:
        """The arguments of ``Producer.send`` of one without serializers."""
        return {
            "value": self.value_bytes,
            "key": self.key_bytes,
            "headers": list(self.headers) or None,
            "partition": self.partition,
            "timestamp_ms": self.timestamp_ms,
        }


def encoded(
    alias: str,
    options: Mapping[str, Any],
    topic: str,
    *,
    value: Any = None,
    key: Any = None,
    headers: Iterable[tuple[str, bytes | None]] | None = None,
    partition: int | None = None,
    timestamp_ms: int | None = None,
    source: str = "producer",
) -> Message:
    """The message, with key and value as the serializers among the producer's ``options`` make them.

    Raises:
        TypeError: a key, value or header is not bytes and no serializer makes it so.
        ValueError: there is neither key nor value, which no producer sends.
    """
    pairs = tuple(headers or ())
    for pair in pairs:
        # A header without a value, which Kafka allows, no producer of kafka-python sends.
        if not (isinstance(pair, tuple) and len(pair) == 2 and isinstance(pair[0], str) and isinstance(pair[1], bytes)):
            raise TypeError(f"a header of a record for {topic!r} is {pair!r}; expected a name and bytes: ('name', b'')")

    def serialized(what: str, data: Any) -> bytes | None:
        serializer = as_serializer(options.get(f"{what}_serializer"))
        made = data if serializer is None else serializer.serialize(topic, list(pairs), data)
        if made is None or isinstance(made, bytes):
            return made
        if isinstance(made, (bytearray, memoryview)):
            return bytes(made)
        raise TypeError(
            f"the {what} of a record for {topic!r} is {type(made).__name__}; expected bytes. Encode it, or give "
            f"POOLEDKAFKA[{alias!r}]['producer'] a {what}_serializer."
        )

    value_bytes, key_bytes = serialized("value", value), serialized("key", key)
    if value_bytes is None and key_bytes is None:
        raise ValueError(f"a record for {topic!r} has neither key nor value; one that deletes a key needs the key")
    return Message(
        topic=topic,
        value=value,
        key=key,
        headers=pairs,
        partition=partition,
        timestamp_ms=timestamp_ms,
        alias=alias,
        value_bytes=value_bytes,
        key_bytes=key_bytes,
        source=source,
    )
