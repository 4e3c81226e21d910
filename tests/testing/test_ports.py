from __future__ import annotations

import socket

import pytest

from pooledkafka.testing import _ports
from pooledkafka.testing._ports import HOST, PORTS, is_free, pick_free_ports


def test_ports_are_different_and_none_is_one_that_a_connection_could_be_given() -> None:
    ports = pick_free_ports(50)
    assert len(set(ports)) == 50
    assert all(20_000 <= port < 32_768 for port in ports)


def test_a_port_that_somebody_listens_on_is_not_free() -> None:
    with socket.create_server((HOST, 0)) as listener:
        port = listener.getsockname()[1]
        assert not is_free(port)
    assert is_free(port)


def test_ports_that_are_taken_are_not_picked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ports, "is_free", lambda port: port % 2 == 0)
    assert all(port % 2 == 0 for port in pick_free_ports(20))


def test_no_port_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_ports, "is_free", lambda port: False)
    with pytest.raises(OSError, match=f"no 3 free ports found between {PORTS.start} and {PORTS.stop - 1} on 127.0.0.1"):
        pick_free_ports(3)
