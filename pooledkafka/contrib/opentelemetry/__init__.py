"""Traces and metrics of what pooled clients send, receive and process, by OpenTelemetry's messaging conventions.

Needs ``pip install 'pooledkafka[opentelemetry]'``, which is the API alone: where spans and metrics go is for the
application's SDK to say. Until ``instrument()`` is called nothing is wrapped, and nothing costs anything.

Example:
    >>> from pooledkafka.contrib.opentelemetry import PooledKafkaInstrumentor
    >>> PooledKafkaInstrumentor().instrument()
"""

from __future__ import annotations

try:
    import opentelemetry.metrics
    import opentelemetry.trace  # noqa: F401
except ImportError as error:
    raise ImportError(
        f"pooledkafka.contrib.opentelemetry needs OpenTelemetry's API, but {error}. Install it: "
        "pip install 'pooledkafka[opentelemetry]'"
    ) from error

from pooledkafka.contrib.opentelemetry._instrumentor import PooledKafkaInstrumentor

__all__ = ["PooledKafkaInstrumentor"]
