"""Which pools show their metrics, and how."""

from __future__ import annotations

import os
import threading
import weakref

from prometheus_client import REGISTRY, CollectorRegistry, values

from pooledkafka.contrib.prometheus._collector import PoolCollector, check_free_for, name_of
from pooledkafka.contrib.prometheus._publisher import Publisher
from pooledkafka.errors import ConfigurationError
from pooledkafka.pool import ConnectionPool

__all__ = ["register", "unregister"]

_lock = threading.Lock()  # guards both below; a forked process finds it free
os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)
_collectors: weakref.WeakKeyDictionary[CollectorRegistry, PoolCollector] = weakref.WeakKeyDictionary()
_publishers: dict[str, Publisher] = {}  # by name


def register(
    pool: ConnectionPool,
    *,
    name: str | None = None,
    registry: CollectorRegistry = REGISTRY,
    lag: bool = True,
    interval_s: float = 5.0,
) -> None:
    """Show the metrics of ``pool``, from any thread; it may be connected already, or not yet.

    Call it where the pool is made. Where that is before a server forks, the metrics of each process begin anew. Again
    for the same pool, it changes how it is shown. Nothing is kept alive by it, and nothing connects.

    In multiprocess mode each process that uses the pool has a thread that writes its metrics. Let your server call
    ``prometheus_client.multiprocess.mark_process_dead(pid)`` for each process that ends, as for all gauges: the
    connections of one that was killed would still be counted.

    Args:
        pool: it measures how long its requests take from now on; see ``ConnectionPool.measure_durations``.
        name: the label ``pool``. Default: its ``client_id``.
        registry: what shows it; in multiprocess mode whichever has a ``MultiProcessCollector`` does.
        lag: show how far consumers are in each partition, and when they polled last.
        interval_s: in multiprocess mode, seconds between two times of writing. Default: 5.

    Raises:
        ConfigurationError: another pool is registered under that name, or ``interval_s`` is not above 0.

    Example:
        >>> register(pool, name="shop")
    """
    if not interval_s > 0:
        raise ConfigurationError(f"interval_s is {interval_s!r}; expected seconds above 0, such as 5")
    name = name_of(pool, name)
    with _lock:
        if values.ValueClass._multiprocess:
            _publish(pool, name, lag, interval_s)
            return
        collector = _collectors.get(registry)
        if collector is None:
            collector = PoolCollector()
            registry.register(collector)
            _collectors[registry] = collector
        collector.add(pool, name=name, lag=lag)


def _publish(pool: ConnectionPool, name: str, lag: bool, interval_s: float) -> None:
    known = _publishers.get(name)
    if known is not None:
        check_free_for(pool, known.pool, name)
    for other, publisher in list(_publishers.items()):
        if publisher.pool in (pool, None):
            publisher.end()
            del _publishers[other]
    _publishers[name] = Publisher(pool, name, lag=lag, interval_s=interval_s)


def unregister(pool: ConnectionPool, *, registry: CollectorRegistry = REGISTRY) -> None:
    """Undo ``register``; does nothing for a pool that is not registered. Its requests are still measured."""
    with _lock:
        if registry in _collectors:
            _collectors[registry].remove(pool)
        for name, publisher in list(_publishers.items()):
            if publisher.pool is pool:
                publisher.end()
                del _publishers[name]
