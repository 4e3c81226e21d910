"""What all unit tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pooledkafka import ConnectionPool
from tests.scripted_broker import ScriptedBroker

pytest_plugins = ["pytester"]


@pytest.fixture
def broker() -> Iterator[ScriptedBroker]:
    with ScriptedBroker({"orders": 2}) as broker:
        yield broker


@pytest.fixture
def pool(broker: ScriptedBroker) -> Iterator[ConnectionPool]:
    pool = ConnectionPool(bootstrap_servers=broker.address)
    yield pool
    pool.disconnect()
