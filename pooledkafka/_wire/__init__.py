"""All that touches kafka-python's internals, so that a new release is met in one place."""

from __future__ import annotations

from pooledkafka._wire.compat import check_kafka_python
from pooledkafka._wire.consumer_facade import Interrupted
from pooledkafka._wire.engine import Engine
from pooledkafka._wire.fetching import PARKED_WAIT_MS
from pooledkafka._wire.flag import Flag
from pooledkafka._wire.futures import fail_in_child, keep
from pooledkafka._wire.lanes import Lane
from pooledkafka._wire.listeners import Listening, Subscriber
from pooledkafka._wire.senders import Senders, as_serializer
from pooledkafka._wire.sending import TopicSender
from pooledkafka._wire.tally import MeasuredDurations, Tally, Wait
from pooledkafka._wire.wired_admin import WiredAdmin
from pooledkafka._wire.wired_consumer import WiredConsumer
from pooledkafka._wire.wired_producer import WiredProducer

__all__ = [
    "PARKED_WAIT_MS",
    "Engine",
    "Flag",
    "Interrupted",
    "Lane",
    "Listening",
    "MeasuredDurations",
    "Senders",
    "Subscriber",
    "Tally",
    "TopicSender",
    "Wait",
    "WiredAdmin",
    "WiredConsumer",
    "WiredProducer",
    "as_serializer",
    "fail_in_child",
    "keep",
]

check_kafka_python()
