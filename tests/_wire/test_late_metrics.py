from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.consumer.fetcher import FetchManagerMetrics
from kafka.coordinator.base import GroupCoordinatorMetrics
from kafka.coordinator.consumer import ConsumerCoordinatorMetrics
from kafka.metrics import MetricConfig, Metrics
from kafka.metrics.metrics_reporter import AbstractMetricsReporter

from pooledkafka import ConnectionPool, Kafka
from pooledkafka._wire import late_metrics
from pooledkafka._wire.late_metrics import LateMetrics
from tests.scripted_broker import ScriptedBroker

CONFIG = {
    "client_id": "shop",
    "metrics_num_samples": 3,
    "metrics_sample_window_ms": 20_000,
    "metric_group_prefix": "consumer",
}
NOW_MS = 5_000_000.0

GROUP = ("heartbeat_latency", "join_latency", "sync_latency")
FETCH = ("fetch_latency", "records_fetch_lag", "bytes_fetched", "records_fetched")


class Stage:
    """As much of a KafkaConsumer as its metrics see."""

    def __init__(self) -> None:
        self.config: dict[str, Any] = {**CONFIG, "metrics_enabled": False}
        self._subscription = SimpleNamespace(assigned_partitions=lambda: [1, 2, 3])
        self._fetcher: Any = SimpleNamespace(_sensors=None)
        heartbeat = SimpleNamespace(last_send=0.0)
        self._coordinator: Any = SimpleNamespace(heartbeat=heartbeat, _sensors=None, _consumer_sensors=None)
        self._metrics: Any = None

    def record(self, sensor: str, value: float, at_ms: float) -> None:
        owner = self._fetcher if sensor in FETCH else self._coordinator
        collection = owner._consumer_sensors if sensor == "commit_latency" else owner._sensors
        getattr(collection, sensor).record(value, at_ms)


def late() -> Stage:
    stage = Stage()
    LateMetrics(stage)
    return stage


def stock() -> Stage:
    """With metrics as kafka-python makes them."""
    stage = Stage()
    tags = {"client-id": CONFIG["client_id"]}
    stage._metrics = metrics = Metrics(MetricConfig(samples=3, time_window_ms=20_000, tags=tags))
    stage._fetcher._sensors = FetchManagerMetrics(metrics, "consumer")
    stage._coordinator._sensors = GroupCoordinatorMetrics(stage._coordinator.heartbeat, metrics, "consumer")
    stage._coordinator._consumer_sensors = ConsumerCoordinatorMetrics(metrics, "consumer", stage._subscription)
    return stage


def read(stage: Stage) -> dict[str, float]:
    """All values at one time, by all that names them."""
    found = stage._metrics.metrics.items()
    return {repr((name.group, name.name, sorted(name.tags.items()))): metric.value(NOW_MS) for name, metric in found}


def value_of(metric: str, values: dict[str, float]) -> float:
    """That of the only one whose name has this in it."""
    (value,) = (value for name, value in values.items() if metric in name)
    return value


def same(one: dict[str, float], other: dict[str, float]) -> None:
    assert one.keys() == other.keys()
    assert repr(sorted(one.items())) == repr(sorted(other.items()))  # nan is not equal to itself


_RECORDED = st.tuples(
    st.sampled_from([*GROUP, *FETCH, "commit_latency"]),
    st.floats(0, 1e6, allow_nan=False),
    st.floats(0, 90_000),
)


@given(st.lists(_RECORDED, max_size=60), st.integers(0, 60))
def test_they_say_what_those_say_that_were_there_from_the_start(
    recorded: list[tuple[str, float, float]], read_after: int
) -> None:
    one, other = late(), stock()
    recorded.sort(key=lambda each: each[2])
    for index, (sensor, value, before_ms) in enumerate(recorded):
        if index == read_after:
            same(read(one), read(other))
        for stage in (one, other):
            stage.record(sensor, value, NOW_MS - 90_000 + before_ms)
    same(read(one), read(other))


def test_none_is_made_until_somebody_reads() -> None:
    stage = late()
    stage.record("join_latency", 7.0, NOW_MS)
    assert stage._metrics._made is None
    assert stage.config["metrics_enabled"] is True, "to whoever looks, they are there"
    values = read(stage)
    assert stage._metrics._made is not None
    assert value_of("join-time-max", values) == 7.0
    assert isinstance(stage._coordinator._sensors, GroupCoordinatorMetrics), "kafka-python's own from now on"
    assert isinstance(stage._coordinator._consumer_sensors, ConsumerCoordinatorMetrics)
    assert isinstance(stage._fetcher._sensors, FetchManagerMetrics)


def test_without_a_time_it_is_the_time_of_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late_metrics, "time", SimpleNamespace(monotonic=lambda: (NOW_MS - 59_000) / 1000))
    one, other = late(), stock()
    one._coordinator._sensors.join_latency.record(4.0)
    other.record("join_latency", 4.0, NOW_MS - 59_000)
    same(read(one), read(other))


def test_who_holds_on_to_a_late_sensor_is_heard() -> None:
    stage = late()
    sensors, sensor = stage._coordinator._sensors, stage._coordinator._sensors.join_latency
    read(stage)
    sensor.record(3.0, NOW_MS)
    sensors.sync_latency.record(5.0, NOW_MS)
    values = read(stage)
    assert value_of("join-time-max", values) == 3.0
    assert value_of("sync-time-max", values) == 5.0


def test_what_is_recorded_while_they_are_made_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = late()
    sensor = stage._coordinator._sensors.join_latency
    made = GroupCoordinatorMetrics

    def meanwhile(*args: Any) -> Any:
        another = threading.Thread(target=sensor.record, args=(1.0, NOW_MS))
        another.start()
        another.join(5)
        assert not another.is_alive(), "who records does not wait for who reads"
        return made(*args)

    monkeypatch.setattr(late_metrics, "GroupCoordinatorMetrics", meanwhile)
    sensor.record(2.0, NOW_MS)
    assert value_of("join-time-avg", read(stage)) == 1.5


def test_a_signal_handler_may_read_them_while_they_are_made(monkeypatch: pytest.MonkeyPatch) -> None:
    stage = late()
    stage.record("join_latency", 7.0, NOW_MS)
    seen: list[dict[str, float]] = []

    def interrupted(config: Any) -> Metrics:
        if not seen:
            seen.append({})
            seen.append(read(stage))
        return Metrics(config)

    monkeypatch.setattr(late_metrics, "Metrics", interrupted)
    thread = threading.Thread(target=lambda: seen.append(read(stage)), daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive(), "it waits for itself"
    _, inner, outer = seen
    same(inner, outer)
    assert value_of("join-time-max", outer) == 7.0


def test_who_takes_records_waits_while_another_thread_makes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """The I/O thread makes them for a hundredth heartbeat, while the first records come."""
    stage = late()
    sensors = stage._fetcher._sensors
    become = late_metrics._LateSensors.become
    polls: list[threading.Thread] = []
    failed: list[BaseException] = []

    def taking() -> None:
        try:
            sensors.record_topic_fetch_metrics("orders", 500, 10)
        except BaseException as error:
            failed.append(error)

    def half_way(self: Any, real: Any) -> None:
        if not polls:
            polls.append(threading.Thread(target=taking, daemon=True))
            polls[0].start()
            polls[0].join(0.1)
            assert polls[0].is_alive() or failed
        become(self, real)

    monkeypatch.setattr(late_metrics._LateSensors, "become", half_way)
    read(stage)
    polls[0].join(5)
    assert not failed
    assert any("orders" in name for name in read(stage))


def test_many_threads_record_while_one_reads() -> None:
    for _ in range(20):
        stage = late()
        start = threading.Barrier(4)

        def recording(stage: Stage = stage, start: threading.Barrier = start) -> None:
            start.wait()
            for _ in range(60):
                stage.record("sync_latency", 1.0, NOW_MS)

        threads = [threading.Thread(target=recording) for _ in range(3)]
        for thread in threads:
            thread.start()
        start.wait()
        read(stage)
        for thread in threads:
            thread.join(10)
        (*_, rate) = stage._coordinator._sensors.sync_latency._stats
        count = sum(sample.value for sample in rate._stat._samples)
        assert count == 180


def test_they_are_made_when_too_much_is_kept() -> None:
    stage = late()
    for _ in range(99):
        stage.record("heartbeat_latency", 1.0, NOW_MS)
    assert stage._metrics._made is None
    stage.record("heartbeat_latency", 9.0, NOW_MS)
    assert stage._metrics._made is not None
    assert value_of("heartbeat-response-time-max", read(stage)) == 9.0


def test_they_are_made_when_records_are_taken() -> None:
    stage = late()
    sensors = stage._fetcher._sensors
    sensors.bytes_fetched.record(500.0, NOW_MS)
    assert stage._metrics._made is None
    sensors.record_topic_fetch_metrics("orders", 500, 10)
    assert stage._metrics._made is not None
    assert any("orders" in name for name in read(stage))


def test_there_are_none_once_it_is_closed() -> None:
    unread, once_read = late(), late()
    read(once_read)
    for stage in (unread, once_read):
        stage._metrics.close()
        assert read(stage) == {}
        stage.record("heartbeat_latency", 1.0, NOW_MS)
    assert unread._metrics._made is None


def test_a_consumer_has_all_that_a_stock_one_has(pool: ConnectionPool, broker: ScriptedBroker) -> None:
    consumer = Kafka().consumer(connection_pool=pool, group_id="billing")
    with consumer:
        consumer.subscribe(["orders"])
        assert set(consumer.metrics()) == {
            "kafka-metrics-count", "consumer-coordinator-metrics", "consumer-fetch-manager-metrics",
        }  # fmt: skip
        raw = consumer.metrics(raw=True)
        assert {repr(name.tags) for name in raw} == {repr({"client-id": pool.options["client_id"]})}
        assert len(raw) == len(read(stock()))


@pytest.mark.parametrize("options", [{"metrics_enabled": False}, {"metric_reporters": []}])
def test_who_wants_none_has_none_and_nobody_to_report_to_is_no_matter(
    pool: ConnectionPool, options: dict[str, Any]
) -> None:
    with Kafka().consumer(connection_pool=pool, group_id="billing", **options) as consumer:
        consumer.subscribe(["orders"])
        assert bool(consumer.metrics()) is bool(options.get("metrics_enabled", True))


def test_a_reporter_hears_of_each_from_the_start(pool: ConnectionPool) -> None:
    told: list[str] = []

    class Reporter(AbstractMetricsReporter):  # type: ignore[misc]
        def init(self, metrics: Any) -> None: ...

        def metric_change(self, metric: Any) -> None:
            told.append(metric.metric_name.name)

        def metric_removal(self, metric: Any) -> None: ...

        def configure(self, configs: Any) -> None: ...

        def close(self) -> None: ...

    options = {"metric_reporters": [Reporter], "group_id": "billing"}
    with Kafka().consumer(connection_pool=pool, **options) as consumer:
        consumer.subscribe(["orders"])
        assert len(told) == len(read(stock()))
