"""The metrics of pools in this process, read when they are asked for."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from pooledkafka.contrib.prometheus._families import FAMILIES, Family, Kind
from pooledkafka.contrib.prometheus._samples import samples
from pooledkafka.errors import ConfigurationError
from pooledkafka.pool import ConnectionPool
from pooledkafka.stats import Durations

__all__ = ["PoolCollector"]


class PoolCollector(Collector):
    """A collector for a registry of ``prometheus_client``; ``register`` makes one where it is needed.

    It reads the pools' counters when it is scraped, and does nothing in between. It does not keep a pool alive. From
    any thread; a forked process shows what it has counted itself.

    A registry shows what this process knows. In multiprocess mode use ``register``, which sees to that.
    """

    def __init__(self) -> None:
        # By name, with whether its lag is shown. Replaced as a whole by add and remove; read by any thread.
        self._pools: dict[str, tuple[weakref.ref[ConnectionPool], bool]] = {}

    def add(self, pool: ConnectionPool, *, name: str | None = None, lag: bool = True) -> None:
        """Show the metrics of ``pool``; see ``register``."""
        name = name_of(pool, name)
        known = self._pools.get(name)
        if known is not None:
            check_free_for(pool, known[0](), name)
        pool.measure_durations()
        self._pools = {**self._without(pool), name: (weakref.ref(pool), lag)}

    def remove(self, pool: ConnectionPool) -> None:
        """Show them no more; does nothing for a pool that is not there."""
        self._pools = self._without(pool)

    def _without(self, pool: ConnectionPool) -> dict[str, tuple[weakref.ref[ConnectionPool], bool]]:
        """Those of other pools that are still there."""
        return {name: known for name, known in self._pools.items() if known[0]() not in (pool, None)}

    def describe(self) -> Iterable[Metric]:
        """All metrics, without values."""
        return [_empty(family) for family in FAMILIES.values()]

    def collect(self) -> Iterator[Metric]:
        found = [
            (name, sample)
            for name, (known, lag) in self._pools.items()
            if (pool := known()) is not None
            for sample in samples(pool, lag=lag)
        ]
        metrics = {name: _empty(family) for name, family in FAMILIES.items()}
        for pool_name, (family, labels, value) in found:
            if isinstance(value, Durations):
                cumulative = itertools.accumulate(value.counts)
                bounds = [*(repr(bound / 1000) for bound in value.bounds_ms), "+Inf"]  # as in multiprocess mode
                buckets = list(zip(bounds, cumulative, strict=True))
                metrics[family.name].add_metric([pool_name, *labels], buckets, value.total_ms / 1000)
            else:
                metrics[family.name].add_metric([pool_name, *labels], value)
        yield from metrics.values()


def name_of(pool: ConnectionPool, name: str | None) -> str:
    """What a pool is called in its label ``pool``."""
    return str(pool.options["client_id"]) if name is None else name


def check_free_for(pool: ConnectionPool, known: ConnectionPool | None, name: str) -> None:
    """Raise ConfigurationError where another pool has the name."""
    if known is not None and known is not pool:
        raise ConfigurationError(
            f"another connection pool is registered as {name!r}, and their metrics could not be told apart; "
            "give each a name of its own: register(pool, name=...)"
        )


def _empty(family: Family) -> Any:
    kinds: dict[Kind, Any] = {Kind.COUNTER: CounterMetricFamily, Kind.HISTOGRAM: HistogramMetricFamily}
    return kinds.get(family.kind, GaugeMetricFamily)(family.full_name, family.help, labels=family.all_labels)
