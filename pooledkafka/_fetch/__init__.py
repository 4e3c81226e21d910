"""The fetch multiplexer: a state machine without I/O, threads or clocks of its own."""

from __future__ import annotations

from pooledkafka._fetch.model import Limits, Line, LogicalFetch, PartitionAnswer, Position, Step, WireFetch
from pooledkafka._fetch.multiplexer import Multiplexer
from pooledkafka._fetch.stream import ReadAhead

__all__ = [
    "Limits",
    "Line",
    "LogicalFetch",
    "Multiplexer",
    "PartitionAnswer",
    "Position",
    "ReadAhead",
    "Step",
    "WireFetch",
]
