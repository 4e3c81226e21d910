"""The metrics of a pool in a registry of one process."""

from __future__ import annotations

import gc
import importlib
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable

import pytest
from kafka.errors import MessageSizeTooLargeError
from kafka.structs import TopicPartition
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from pooledkafka import ConfigurationError, ConnectionPool, Kafka
from pooledkafka.contrib.prometheus import PoolCollector, register, unregister
from pooledkafka.contrib.prometheus._families import FAMILIES
from pooledkafka.testing import EmbeddedKafka, Error, Throttle
from tests.contrib.prometheus.exposition import Scrape, parse
from tests.pooled.waiting import until
from tests.prometheus_server import PROMTOOL


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def scrape(registry: CollectorRegistry) -> Callable[[], Scrape]:
    return lambda: parse(generate_latest(registry).decode())


@pytest.fixture
def value(scrape: Callable[[], Scrape]) -> Callable[..., float | None]:
    """Finds one value; None where there is none."""

    def find(name: str, pool: str = "shop", **labels: str) -> float | None:
        return scrape().get((f"pooledkafka_{name}", frozenset({"pool": pool, **labels}.items())))

    return find


def use(kafka: Kafka, pool: ConnectionPool, cluster: EmbeddedKafka) -> None:
    """Let every metric have something to show."""
    producer = kafka.producer(connection_pool=pool)
    cluster.intercept("Produce", Throttle(0.01), times=1)
    producer.send_batch("orders", [{"value": b"x", "partition": 0}] * 20).get(timeout=10)
    cluster.intercept("Produce", Error(MessageSizeTooLargeError), times=1)
    with pytest.raises(MessageSizeTooLargeError):
        producer.send("orders", b"x", partition=0).get(timeout=10)
    until(lambda: pool.stats().records_failed)


def test_every_metric_tells_what_the_pool_knows(
    kafka: Kafka,
    pool: ConnectionPool,
    cluster: EmbeddedKafka,
    registry: CollectorRegistry,
    value: Callable[..., float | None],
) -> None:
    register(pool, registry=registry)
    use(kafka, pool, cluster)
    consumer = kafka.consumer("orders", group_id="billing", connection_pool=pool, auto_offset_reset="earliest")
    taken = until(lambda: sum(map(len, consumer.poll(100, max_records=5).values())))
    stats = pool.stats()
    assert value("clients", kind="consumer") == 1
    assert value("clients", kind="producer") == stats.producers
    assert value("connections", broker="1", lane="produce") == 1
    assert value("connections_created_total", broker="1", lane="control") == 1
    assert value("connections_closed_total", broker="-1", lane="bootstrap", reason="bootstrapped") == 1
    assert value("produced_records_total", topic="orders") == 20
    assert value("failed_records_total", topic="orders") == 1
    assert value("consumed_records_total", group="billing", topic="orders") == taken
    assert value("consumer_lag_records", group="billing", topic="orders", partition="0") == 20 - taken
    age = value("consumer_poll_age_seconds", group="billing")
    assert age is not None
    assert age < 10
    assert value("throttles_total", broker="1") == 1
    assert value("throttle_seconds_total", broker="1") == 0.01
    assert value("request_duration_seconds_count", api="Produce") == stats.durations["Produce"].count == 2
    assert value("request_duration_seconds_bucket", api="Produce", le="+Inf") == 2
    seconds = value("request_duration_seconds_sum", api="Produce")
    assert seconds == pytest.approx(stats.durations["Produce"].total_ms / 1000)
    assert value("sent_bytes_total", broker="1", lane="produce") == stats.bytes_sent[1]["produce"]
    assert value("requests_waiting", reason="join_turn") == 0
    consumer.close()
    assert value("consumer_lag_records", group="billing", topic="orders", partition="0") is None
    assert value("consumed_records_total", group="billing", topic="orders") == taken


def test_no_group_and_the_group_without_a_name_are_one(
    kafka: Kafka, pool: ConnectionPool, registry: CollectorRegistry
) -> None:
    register(pool, registry=registry)
    kafka.producer(connection_pool=pool).send("orders", b"x", partition=0).get(timeout=10)
    for group in (None, ""):
        options = {"auto_offset_reset": "earliest", "enable_auto_commit": False}
        with kafka.consumer(group_id=group, connection_pool=pool, **options) as consumer:
            consumer.assign([TopicPartition("orders", 0)])
            until(lambda: consumer.poll(100))
    lines = generate_latest(registry).decode().splitlines()
    consumed = [line for line in lines if line.startswith("pooledkafka_consumed_records_total{")]
    assert consumed == ['pooledkafka_consumed_records_total{group="",pool="shop",topic="orders"} 2.0']


def test_a_family_without_values_is_still_described(
    kafka: Kafka, registry: CollectorRegistry, scrape: Callable[[], Scrape]
) -> None:
    pool = kafka.connection_pool()
    register(pool, registry=registry)
    text = generate_latest(registry).decode()
    for family in FAMILIES.values():
        assert f"# HELP {family.full_name}" in text
    assert pool.stats().connections_created == 0, "a scrape connects nothing"


def test_both_formats_can_be_read(
    kafka: Kafka, pool: ConnectionPool, cluster: EmbeddedKafka, registry: CollectorRegistry
) -> None:
    register(pool, registry=registry)
    other = kafka.connection_pool()
    register(other, name="other", registry=registry)
    use(kafka, pool, cluster)
    text = openmetrics.generate_latest(registry).decode()  # type: ignore[no-untyped-call]
    families = {family.name for family in text_string_to_metric_families(text)}  # type: ignore[no-untyped-call]
    assert families == {family.full_name for family in FAMILIES.values()}
    if PROMTOOL is None:
        pytest.skip("promtool is not installed; it comes with prometheus")
    command = [PROMTOOL, "check", "metrics"]
    checked = subprocess.run(command, input=generate_latest(registry), capture_output=True, check=False)
    assert (checked.returncode, checked.stderr.decode()) == (0, "")


def test_two_pools_need_names_that_differ(
    kafka: Kafka, registry: CollectorRegistry, value: Callable[..., float | None]
) -> None:
    first, second = kafka.connection_pool(), kafka.connection_pool()
    register(first, registry=registry)
    with pytest.raises(ConfigurationError, match="another connection pool is registered as 'shop'"):
        register(second, registry=registry)
    register(second, name="second", registry=registry)
    assert value("requests_in_flight") == value("requests_in_flight", pool="second") == 0
    with pytest.raises(ConfigurationError):
        register(first, name="second", registry=registry)
    assert value("requests_in_flight") == 0, "it is shown as before"
    register(first, name="first", registry=registry)  # again: it has another name now
    assert value("requests_in_flight") is None
    assert value("requests_in_flight", pool="first") == 0


def test_lag_may_be_left_out(
    kafka: Kafka,
    pool: ConnectionPool,
    cluster: EmbeddedKafka,
    registry: CollectorRegistry,
    scrape: Callable[[], Scrape],
) -> None:
    register(pool, registry=registry, lag=False)
    use(kafka, pool, cluster)
    with kafka.consumer("orders", group_id="g", connection_pool=pool, auto_offset_reset="earliest") as consumer:
        until(lambda: consumer.poll(100))
        names = {name for name, _ in scrape()}
    assert "pooledkafka_consumed_records_total" in names
    assert not names & {"pooledkafka_consumer_lag_records", "pooledkafka_consumer_poll_age_seconds"}


def test_it_keeps_no_pool_alive_and_can_be_undone(
    kafka: Kafka, registry: CollectorRegistry, scrape: Callable[[], Scrape]
) -> None:
    pool = kafka.connection_pool()
    register(pool, registry=registry)
    assert scrape()
    unregister(pool, registry=registry)
    unregister(pool, registry=registry)
    assert not scrape()
    register(pool, registry=registry)
    gone = weakref.ref(pool)
    del pool
    gc.collect()
    assert gone() is None
    assert not scrape()


def test_pools_that_come_and_go_leave_nothing_behind(kafka: Kafka) -> None:
    collector = PoolCollector()
    for number in range(5):
        collector.add(kafka.connection_pool(), name=f"pool {number}")
        gc.collect()
    assert len(collector._pools) == 1


def test_what_is_not_registered_measures_nothing(kafka: Kafka, pool: ConnectionPool, cluster: EmbeddedKafka) -> None:
    use(kafka, pool, cluster)
    assert pool.stats().durations == {}


def test_the_default_registry_is_used(kafka: Kafka) -> None:
    pool = kafka.connection_pool()
    register(pool, name="of the default registry")
    assert REGISTRY.get_sample_value("pooledkafka_requests_in_flight", {"pool": "of the default registry"}) == 0
    unregister(pool)


def test_a_collector_may_be_used_by_itself(kafka: Kafka, registry: CollectorRegistry) -> None:
    collector = PoolCollector()
    registry.register(collector)
    pool = kafka.connection_pool()
    collector.add(pool)
    assert registry.get_sample_value("pooledkafka_requests_in_flight", {"pool": "shop"}) == 0
    with pytest.raises(ConfigurationError, match="name of its own"):
        collector.add(kafka.connection_pool())


@pytest.mark.parametrize("interval_s", [0, -1])
def test_an_interval_is_above_zero(kafka: Kafka, interval_s: float) -> None:
    with pytest.raises(ConfigurationError, match="interval_s"):
        register(kafka.connection_pool(), interval_s=interval_s)


def test_without_its_extra_it_says_which_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    monkeypatch.delitem(sys.modules, "pooledkafka.contrib.prometheus")
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'pooledkafka\[prometheus\]'"):
        importlib.import_module("pooledkafka.contrib.prometheus")


def test_scrapes_while_everything_changes_are_whole(
    kafka: Kafka, pool: ConnectionPool, registry: CollectorRegistry, scrape: Callable[[], Scrape]
) -> None:
    register(pool, registry=registry)
    over = threading.Event()
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            while not over.is_set():
                producer = kafka.producer(connection_pool=pool)
                producer.send("orders", b"x").get(timeout=10)
                with kafka.consumer("orders", group_id=f"g{number}", connection_pool=pool) as consumer:
                    consumer.poll(20)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    produced: list[float] = []
    try:
        key = ("pooledkafka_produced_records_total", frozenset({("pool", "shop"), ("topic", "orders")}))

        def scraped() -> float:
            produced.append(scrape().get(key, 0.0))
            return produced[-1]

        until(scraped, lambda found: found > 30)
    finally:
        over.set()
        for thread in threads:
            thread.join()
    assert errors == []
    assert produced == sorted(produced)
