from __future__ import annotations

import logging
import subprocess
import sys

import pytest
import structlog

from pooledkafka import ConnectionPool
from pooledkafka._logging import get_logger
from pooledkafka.testing import EmbeddedKafka
from tests.pooled.waiting import until


def test_events_go_to_logging_under_the_name_given(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="pooledkafka.test"):
        get_logger("pooledkafka.test").info("connection.failed", broker=3, error="refused")
    (record,) = caplog.records
    assert record.name == "pooledkafka.test"
    assert record.getMessage() == "event='connection.failed' broker=3 error='refused'"


def test_fields_are_attributes_for_formatters(caplog: pytest.LogCaptureFixture) -> None:
    get_logger("pooledkafka.test").warning("connection.failed", pool="shop", broker=3)
    fields = vars(caplog.records[0])
    assert (fields["event"], fields["pool"], fields["broker"]) == ("connection.failed", "shop", 3)


def test_an_application_with_structlog_shows_the_fields_its_own_way() -> None:
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[structlog.stdlib.ExtraAdder(["pool", "broker"])],
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, structlog.processors.JSONRenderer()],
    )
    shown: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: shown.append(formatter.format(record))  # type: ignore[method-assign]
    logger = logging.getLogger("pooledkafka.test")
    logger.addHandler(handler)
    try:
        get_logger("pooledkafka.test").warning("connection.failed", pool="shop", broker=3)
    finally:
        logger.removeHandler(handler)
    assert '"pool": "shop", "broker": 3' in shown[0]


def test_a_traceback_is_shown(caplog: pytest.LogCaptureFixture) -> None:
    get_logger("pooledkafka.test").error("handler.ended", exc_info=LookupError("no such customer"))
    assert "LookupError: no such customer" in caplog.text


def test_below_warning_nothing_is_said_until_the_application_asks(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    assert logging.getLogger("pooledkafka.silent").getEffectiveLevel() == logging.WARNING
    get_logger("pooledkafka.silent").info("pool.connected")
    assert not caplog.records
    assert capsys.readouterr() == ("", "")


PROGRAM = """
import sys
from pooledkafka import Kafka
from pooledkafka._logging import get_logger
from pooledkafka.testing import EmbeddedKafka
from tests.pooled.waiting import until
with EmbeddedKafka() as cluster, Kafka(**cluster.client_options()).connection_pool() as pool:
    Kafka().producer(connection_pool=pool).send("orders", b"tea").get(timeout=10)
    get_logger("pooledkafka.test").warning("broker.gone")
import logging, structlog
print(structlog.is_configured(), logging.getLogger().handlers, logging.getLogger("pooledkafka").handlers)
"""


def test_a_program_that_configures_nothing_hears_warnings_alone_and_on_standard_error() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=50, check=True)
    assert done.stdout == "False [] []\n", "and neither structlog nor logging was configured behind its back"
    assert done.stderr == "event='broker.gone'\n"


def test_records_of_a_pool_say_which_pool_broker_and_lane(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "pooledkafka")
    with EmbeddedKafka(brokers=1) as cluster, ConnectionPool(**cluster.client_options(), client_id="shop") as pool:
        pool.client.await_ready(1)
    said = {record.__dict__["event"]: record.__dict__ for record in caplog.records if hasattr(record, "event")}
    assert said["pool.connected"]["pool"] == said["pool.disconnected"]["pool"] == "shop"
    ready = said["connection.ready"]
    assert (ready["pool"], ready["broker"], ready["lane"]) == ("shop", 1, "control")


def test_a_connection_that_was_up_and_ends_is_told_with_its_cause(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pooledkafka")
    with EmbeddedKafka(brokers=1) as cluster:
        pool = ConnectionPool(**cluster.client_options(), client_id="shop", reconnect_backoff_ms=10)
        with pool:
            pool.client.await_ready(1)
            cluster.kill(1)
            until(lambda: any(getattr(record, "event", "") == "connection.failed" for record in caplog.records))
    events = [record.__dict__ for record in caplog.records if hasattr(record, "event")]
    (lost,) = [event for event in events if event["event"] == "connection.lost"]
    assert (lost["pool"], lost["broker"], lost["lane"], lost["levelname"]) == ("shop", 1, "control", "INFO")
    assert not any(event["event"] == "connection.lost" and event["lane"] == "bootstrap" for event in events)


def test_kafka_pythons_records_flow_on(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "kafka")
    with EmbeddedKafka(brokers=1) as cluster, ConnectionPool(**cluster.client_options()) as pool:
        pool.client.await_ready(1)
    assert any(record.name.startswith("kafka.") for record in caplog.records)
    handlers = [handler for name in ("kafka", "kafka.net") for handler in logging.getLogger(name).handlers]
    assert [type(handler) for handler in handlers] == [logging.NullHandler], "which is kafka-python's own"


def test_the_applications_own_structlog_is_left_alone() -> None:
    assert not structlog.is_configured()
