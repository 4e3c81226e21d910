"""What a pool that connects in uWSGI warns of; integration/test_uwsgi.py has the real one."""

from __future__ import annotations

import logging
import sys
from types import ModuleType
from typing import Any

import pytest

from pooledkafka import ConnectionPool
from tests.scripted_broker import ScriptedBroker


def in_uwsgi(monkeypatch: pytest.MonkeyPatch, worker: int = 0, master: int = 1, **given: Any) -> None:
    module = ModuleType("uwsgi")
    module.__dict__.update(worker_id=lambda: worker, masterpid=lambda: master, numproc=4, has_threads=1, opt={})
    module.__dict__.update(given)
    monkeypatch.setitem(sys.modules, "uwsgi", module)


@pytest.fixture
def warnings(broker: ScriptedBroker, caplog: pytest.LogCaptureFixture) -> Any:
    def connect() -> list[str]:
        with caplog.at_level(logging.WARNING, "pooledkafka.pool"), ConnectionPool(bootstrap_servers=broker.address):
            return [record.getMessage() for record in caplog.records]

    return connect


def test_forks_of_the_master_are_warned_of(warnings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    in_uwsgi(monkeypatch)
    (warning,) = warnings()
    assert "py-call-uwsgi-fork-hooks = true, or lazy-apps = true" in warning


@pytest.mark.parametrize(
    "how",
    [
        {"worker": 1},
        {"master": 0, "numproc": 1},
        {"opt": {"py-call-uwsgi-fork-hooks": True}},
    ],
)
def test_nothing_is_warned_of_where_nothing_is_wrong(
    warnings: Any, monkeypatch: pytest.MonkeyPatch, how: dict[str, Any]
) -> None:
    in_uwsgi(monkeypatch, **how)
    assert warnings() == []


def test_a_uwsgi_without_threads_is_warned_of(warnings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    in_uwsgi(monkeypatch, worker=2, has_threads=0)
    (warning,) = warnings()
    assert "enable-threads = true" in warning


def test_another_module_of_that_name_is_left_alone(warnings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uwsgi", ModuleType("uwsgi"))
    assert warnings() == []
