from __future__ import annotations

from collections.abc import Iterator

import pytest

from pooledkafka._wire.engine import Engine
from pooledkafka._wire.loop import Loop
from tests._wire.reading import ORDERS, Log, Reading, connected
from tests.scripted_broker import ScriptedBroker


@pytest.fixture
def log() -> Log:
    return Log()


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    loop.start()
    yield loop
    loop.close()


@pytest.fixture
def engine(broker: ScriptedBroker, log: Log) -> Iterator[Engine]:
    with connected(broker, log) as engine:
        yield engine


@pytest.fixture
def reading(engine: Engine) -> Iterator[Reading]:
    reading = Reading(engine, ORDERS)
    yield reading
    reading.close()
