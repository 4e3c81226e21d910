"""A consumer's metrics, made when they are read."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Any

from kafka import KafkaConsumer
from kafka.consumer.fetcher import FetchManagerMetrics
from kafka.coordinator.base import GroupCoordinatorMetrics
from kafka.coordinator.consumer import ConsumerCoordinatorMetrics
from kafka.metrics import MetricConfig, Metrics

from pooledkafka._locks import LockName, new_rlock

__all__ = ["LateMetrics"]

_MOST_KEPT = 100


class LateMetrics:
    """In place of the ``Metrics`` of a consumer that was made without them.

    kafka-python makes 23 for each consumer, which takes half of its constructor's time, and few programs read any.
    What is recorded is kept, with its time, until they are read, a hundred of one thing are kept, or the consumer has
    taken records: then they are made, and what was kept is recorded. They say what they would have said.

    From any thread.
    """

    def __init__(self, consumer: KafkaConsumer) -> None:
        config, coordinator = consumer.config, consumer._coordinator
        self._config = MetricConfig(
            samples=config["metrics_num_samples"],
            time_window_ms=config["metrics_sample_window_ms"],
            tags={"client-id": config["client_id"]},
        )
        prefix, subscription = config["metric_group_prefix"], consumer._subscription
        self._lock = new_rlock(LockName.METRICS)
        self._made: Metrics | None = None  # set once, under _lock
        self._closed = False  # set once, by the consumer's thread
        # Who records what, under which name it has it, and what makes it of the Metrics. Constant.
        self._sensors: list[tuple[Any, str, Callable[[Metrics], Any]]] = [
            (consumer._fetcher, "_sensors", lambda metrics: FetchManagerMetrics(metrics, prefix)),
            (coordinator, "_sensors", lambda metrics: GroupCoordinatorMetrics(coordinator.heartbeat, metrics, prefix)),
            (
                coordinator,
                "_consumer_sensors",
                lambda metrics: ConsumerCoordinatorMetrics(metrics, prefix, subscription),
            ),
        ]
        for owner, name, _ in self._sensors:
            setattr(owner, name, _LateSensors(self._make))
        consumer._metrics = self
        config["metrics_enabled"] = True

    @property
    def metrics(self) -> dict[Any, Any]:
        """All of them by name; none once the consumer is closed, as kafka-python has it."""
        return {} if self._closed else self._make().metrics

    def close(self) -> None:
        """There is nothing more to read."""
        self._closed = True

    def _make(self) -> Metrics:
        with self._lock:
            if self._made is None:
                metrics = Metrics(self._config)
                made = [make(metrics) for *_, make in self._sensors]
                if self._made is None:  # a signal handler of this thread may have read them meanwhile
                    self._made = metrics
                    for (owner, name, _), sensors in zip(self._sensors, made, strict=True):
                        late = getattr(owner, name)
                        setattr(owner, name, sensors)
                        late.become(sensors)
            return self._made


class _LateSensors:
    """In place of one of kafka-python's collections of sensors; each is there from when it is asked for."""

    def __init__(self, make: Callable[[], object]) -> None:
        self._make = make
        self._kept: dict[str, _LateSensor] = {}  # added to by any thread
        self._sensors: Any = None  # set once, by ``become``

    def __getattr__(self, name: str) -> _LateSensor:
        if name.startswith("_"):
            raise AttributeError(name)
        kept = self._kept.setdefault(name, _LateSensor(self._make))
        if self._sensors is not None:  # it may have come too late for ``become``
            kept.become(getattr(self._sensors, name))
        return kept

    def record_topic_fetch_metrics(self, topic: str, num_bytes: int, num_records: int) -> None:
        """Records were taken, so that there is something to read."""
        self._make()
        self._sensors.record_topic_fetch_metrics(topic, num_bytes, num_records)

    def become(self, sensors: Any) -> None:
        """These are there now; whoever has this still may go on with it."""
        self._sensors = sensors
        for name, kept in list(self._kept.items()):
            kept.become(getattr(sensors, name))


class _LateSensor:
    """In place of a ``Sensor``."""

    def __init__(self, make: Callable[[], object]) -> None:
        self._make = make
        self._values: deque[tuple[float, float]] = deque()  # with their times in ms; of any thread
        self._sensor: Any = None

    def record(self, value: float = 1.0, time_ms: float | None = None) -> None:
        """Keep a value, or hand it on."""
        # In this order: where the sensor comes in between, this thread hands over what it has kept, or that one does.
        self._values.append((value, time.monotonic() * 1000 if time_ms is None else time_ms))
        if self._sensor is not None:
            self._hand_over()
        elif len(self._values) >= _MOST_KEPT:
            self._make()

    def become(self, sensor: Any) -> None:
        """Hand on to this sensor, from now on, what is recorded."""
        self._sensor = sensor
        self._hand_over()

    def _hand_over(self) -> None:
        while self._values:
            try:
                kept = self._values.popleft()
            except IndexError:  # another thread has handed over the last
                return
            self._sensor.record(*kept)
