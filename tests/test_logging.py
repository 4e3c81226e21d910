from __future__ import annotations

import logging

import pytest
import structlog

from pooledkafka._logging import get_logger


def test_events_go_to_logging_under_the_name_given(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="pooledkafka.test"):
        get_logger("pooledkafka.test").info("connection failed", broker=3, error="refused")
    (record,) = caplog.records
    assert record.name == "pooledkafka.test"
    assert record.getMessage() == "event='connection failed' broker=3 error='refused'"


def test_below_warning_nothing_is_said_until_the_application_asks(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    assert logging.getLogger("pooledkafka.silent").getEffectiveLevel() == logging.WARNING
    get_logger("pooledkafka.silent").info("connected")
    assert not caplog.records
    assert capsys.readouterr() == ("", "")


def test_nothing_ever_goes_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    get_logger("pooledkafka.test").warning("a broker is gone")
    assert capsys.readouterr().out == ""


def test_the_applications_own_structlog_is_left_alone() -> None:
    assert not structlog.is_configured()
