"""Engines for tests that bring their own brokers, or none."""

from __future__ import annotations

from typing import Any

from pooledkafka import ConnectionPool
from pooledkafka._wire.engine import Engine


def new_engine(**options: Any) -> Engine:
    """An engine with a pool's options, not started. It refreshes nothing by itself: its metadata is the test's."""
    pool = ConnectionPool(**options)
    engine = Engine(pool.options, **pool._limits, tell=pool._feed.tell, tally=pool._tally)
    engine.manager.cluster.start_refresh_loop = lambda: None
    return engine
