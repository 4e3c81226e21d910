"""All that touches kafka-python's internals, so that a new release is met in one place."""

from __future__ import annotations

from pooledkafka._wire.clients import WiredConsumer, WiredProducer
from pooledkafka._wire.compat import check_kafka_python
from pooledkafka._wire.consumer_facade import Interrupted
from pooledkafka._wire.engine import Engine
from pooledkafka._wire.lanes import Lane

__all__ = ["Engine", "Interrupted", "Lane", "WiredConsumer", "WiredProducer"]

check_kafka_python()
