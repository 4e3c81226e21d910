"""Metrics of connection pools for Prometheus; needs the extra ``prometheus``.

``register(pool)`` is all: whatever exposes the registry of ``prometheus_client`` exposes the pool's metrics then. Where
``prometheus_client`` runs in multiprocess mode (``PROMETHEUS_MULTIPROC_DIR``), as under gunicorn, each process writes
its own, and ``MultiProcessCollector`` adds them up. docs/metrics.md says what each one means.

Example:
    >>> from prometheus_client import start_http_server
    >>> from pooledkafka.contrib.prometheus import register
    >>> register(pool, name="shop")
    >>> start_http_server(8000)
"""

from __future__ import annotations

try:
    import prometheus_client as _needed  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "pooledkafka.contrib.prometheus needs prometheus_client, which is not installed: "
        "pip install 'pooledkafka[prometheus]'",
        name=error.name,
    ) from error

from pooledkafka.contrib.prometheus._collector import PoolCollector
from pooledkafka.contrib.prometheus._registration import register, unregister

__all__ = ["PoolCollector", "register", "unregister"]
