"""``demo``, as far as integration/test_demo.py does not show it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from pooledkafka._demo import apart, demonstration
from tests._cli.conftest import Command
from tests.scripted_broker import closed_port


def test_it_is_shown_and_told(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demonstration, "SETTLED_WITHIN_S", 0.0)
    result = command("demo", "--consumers", "3", "--producers", "1", "--records", "30", "--rate", "300", "--json")
    assert result.code == 0, result
    found = result.json
    assert (found["groups"], found["exact"], found["sent"], found["errors"]) == (3, 3, 30, [])
    assert found["apart"]["connections"] > 0
    assert "3 of 3 groups received each of the 30 records sent exactly once" in result.err


def test_a_cluster_that_is_not_there(command: Command) -> None:
    with closed_port() as port:
        result = command("demo", "--bootstrap", f"127.0.0.1:{port}")
    assert result.code == 1
    assert "Traceback" not in result.err
    assert "pooledkafka: " in result.err


def test_clients_without_a_pool_that_fail(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demonstration, "SETTLED_WITHIN_S", 0.0)
    missing = SimpleNamespace(__name__="tests.no_such_module", sockets_to=apart.sockets_to)
    monkeypatch.setattr(demonstration, "apart", missing)
    result = command("demo", "--consumers", "1", "--producers", "1", "--records", "3", "--rate", "300")
    assert result.code == 1
    assert "No module named tests.no_such_module" in result.err
    assert "the process of the clients without a pool ended with exit code 1" in result.err
