from __future__ import annotations

from collections.abc import Iterator

import pytest

from pooledkafka._wire.engine import Engine
from tests._wire.reading import ORDERS, Log, Reading, connected
from tests.scripted_broker import ScriptedBroker


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def engine(broker: ScriptedBroker, log: Log) -> Iterator[Engine]:
    with connected(broker, log) as engine:
        yield engine


@pytest.fixture
def reading(engine: Engine) -> Iterator[Reading]:
    reading = Reading(engine, ORDERS)
    yield reading
    reading.close()
