"""The Grafana dashboard and the alerts: each yields what it is for, in a real Prometheus that scrapes a real pool."""

from __future__ import annotations

import json
import math
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka.errors import KafkaError, MessageSizeTooLargeError
from kafka.protocol.metadata import MetadataRequest
from prometheus_client import CollectorRegistry, start_http_server

from pooledkafka import ConnectionPool, Kafka, Producer
from pooledkafka.contrib.prometheus import register
from pooledkafka.contrib.prometheus._families import FAMILIES, Kind
from pooledkafka.testing import Drop, EmbeddedKafka, Error, Throttle
from tests.pooled.reading import Reader
from tests.pooled.waiting import until
from tests.prometheus_server import PROMTOOL, Prometheus, prometheus

DOCS = Path(__file__).parents[3] / "docs"
ALERTS = DOCS / "grafana" / "alerts.yml"
DASHBOARD: dict[str, Any] = json.loads((DOCS / "grafana" / "pooledkafka.json").read_text())
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
NAMES = {
    family.full_name + {Kind.COUNTER: "_total", Kind.HISTOGRAM: "_bucket"}.get(family.kind, "")
    for family in FAMILIES.values()
}
VARIABLES = {"$pool": ".*", "$__rate_interval": "10s"}


def asked(expression: str) -> str:
    """What Grafana asks in place of an expression with variables."""
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    assert "$" not in expression, f"a variable that is not known: {expression}"
    return expression


EXPRESSIONS = [asked(target["expr"]) for panel in PANELS for target in panel["targets"]]


def nothing_connects(cluster: EmbeddedKafka, pool: ConnectionPool) -> None:
    """Let the pool fail to open a connection."""
    cluster.kill(2)

    def attempt() -> bool:
        with pytest.raises(KafkaError):
            pool.client.send_and_receive(2, MetadataRequest(topics=[], allow_auto_topic_creation=False))
        return bool(pool.stats().failed)

    until(attempt)
    cluster.start(2)


def everything_happens(cluster: EmbeddedKafka, producer: Producer) -> None:
    """Let a broker take records, throttle, refuse, and hang up."""
    for action in (None, Throttle(0.01), Drop(), Error(MessageSizeTooLargeError)):
        if action is not None:
            cluster.intercept("Produce", action, times=1)
        future = producer.send("orders", b"x", partition=0)
        if isinstance(action, Error):
            with pytest.raises(MessageSizeTooLargeError):
                future.get(timeout=10)
        else:
            future.get(timeout=10)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """A Prometheus that has scraped a pool to which all has happened that there is a metric of."""
    registry = CollectorRegistry()
    http, thread = start_http_server(0, addr="127.0.0.1", registry=registry)
    try:
        with (
            EmbeddedKafka(brokers=2) as cluster,
            prometheus(http.server_port, tmp_path_factory.mktemp("prometheus"), ALERTS) as server,
        ):
            cluster.create_topic("orders", partitions=2)
            kafka = Kafka(
                **cluster.client_options(), client_id="shop", reconnect_backoff_ms=10, reconnect_backoff_max_ms=50
            )
            with kafka.connection_pool(max_in_flight_requests=8) as pool:
                register(pool, registry=registry)
                nothing_connects(cluster, pool)
                producer = kafka.producer(connection_pool=pool)
                with Reader(kafka.consumer("orders", group_id="billing", connection_pool=pool)) as reader:
                    reader.is_assigned(2)

                    def silent() -> list[str]:
                        everything_happens(cluster, producer)
                        return [expression for expression in EXPRESSIONS if not server.query(expression)]

                    until(silent, lambda found: not found, timeout_s=40)
                    yield server
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


@pytest.mark.parametrize("panel", PANELS, ids=[panel["title"] for panel in PANELS])
def test_a_panel_shows_data(server: Prometheus, panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        found = server.query(asked(target["expr"]))
        values = [float(series["value"][1]) for series in found]
        assert [value for value in values if not math.isnan(value)], f"no data: {target['expr']}"
        for label in re.findall(r"{{(\w+)}}", target["legendFormat"]):
            assert all(series["metric"].get(label) for series in found), f"{target['legendFormat']}: no {label}"
        if len(found) > 1:
            assert "{{" in target["legendFormat"], f"its lines cannot be told apart: {target['expr']}"


def test_the_variable_finds_the_pools(server: Prometheus) -> None:
    (variable,) = (each for each in DASHBOARD["templating"]["list"] if each["name"] == "pool")
    (metric,) = re.findall(r"label_values\((\w+), pool\)", variable["definition"])
    assert [series["metric"]["pool"] for series in server.query(metric)] == ["shop"]


def test_alerts_are_understood_and_look_at_what_is_there(server: Prometheus) -> None:
    rules = until(server.rules, lambda found: found and all(rule["health"] == "ok" for rule in found))
    for rule in rules:
        expression = re.sub(r" > [\d.]+", "", rule["query"])
        assert server.query(expression), f"{rule['name']} looks at nothing: {expression}"
    firing = until(lambda: [rule["name"] for rule in server.rules() or () if rule["state"] == "firing"])
    assert firing == ["PooledKafkaRecordsAreLost"], "some were lost; nothing else is wrong for long"


LOST = """
rule_files: [{rules}]
evaluation_interval: 15s
tests:
  - interval: 15s
    input_series:
      - series: pooledkafka_failed_records_total{pool="shop", topic="orders", instance="first"}
        values: _x8 500x60
    alert_rule_test:
      - alertname: PooledKafkaRecordsAreLost
        eval_time: 1m
      - alertname: PooledKafkaRecordsAreLost
        eval_time: 3m
        exp_alerts:
          - exp_labels: {pool: shop, topic: orders}
            exp_annotations: {summary: "500 records for orders could not be delivered"}
      - alertname: PooledKafkaRecordsAreLost
        eval_time: 15m
"""
UNREACHED = """
rule_files: [{rules}]
evaluation_interval: 30s
tests:
  - interval: 30s
    input_series:
      - series: pooledkafka_connections_failed_total{pool="shop", broker="2", lane="fetch"}
        values: 1+1x40
    alert_rule_test:
      - alertname: PooledKafkaConnectionsFail
        eval_time: 15m
        exp_alerts:
          - exp_labels: {pool: shop, broker: 2}
            exp_annotations: {summary: "Pool shop cannot connect to broker 2"}
"""


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed; it comes with prometheus")
@pytest.mark.parametrize("story", [LOST, UNREACHED], ids=["the first records are lost", "a broker does not answer"])
def test_an_alert_is_heard_of(story: str, tmp_path: Path) -> None:
    told = tmp_path / "story.yml"
    told.write_text(story.replace("{rules}", str(ALERTS)))
    command = [str(PROMTOOL), "test", "rules", str(told)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_shows_every_metric() -> None:
    shown = {name for expression in EXPRESSIONS for name in re.findall(r"pooledkafka_\w+", expression)}
    assert {name.replace("duration_seconds_count", "duration_seconds_bucket") for name in shown} == NAMES


def test_every_metric_is_documented() -> None:
    page = (DOCS / "metrics.md").read_text()
    documented = set(re.findall(r"^\| `(pooledkafka_\w+)", page, flags=re.MULTILINE))
    assert documented == {name.removesuffix("_bucket") for name in NAMES}
    labels = dict(re.findall(r"^\| `pooledkafka_(\w+?)(?:_total)?`(?: \((.*?)\))?", page, flags=re.MULTILINE))
    assert {name: tuple(re.findall(r"\w+", told)) for name, told in labels.items()} == {
        family.name: family.labels for family in FAMILIES.values()
    }
    for alert in re.findall(r"alert: (\w+)", ALERTS.read_text()):
        assert f"`{alert}`" in page


def test_no_panels_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        assert at["x"] + at["w"] <= 24
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
