"""Refuses a kafka-python whose internals this package does not know."""

from __future__ import annotations

from kafka import __version__ as kafka_python_version

__all__ = ["check_kafka_python"]

_OLDEST = (3, 0, 12)
_TOO_NEW = (3, 1)


def check_kafka_python(version: str = kafka_python_version) -> None:
    """Raise ImportError unless kafka-python is one that the contract tests cover.

    The pool reaches into kafka-python's network layer, which changes between minor versions; a pin in the package's
    metadata does not help where somebody overrides it.
    """
    numbers = tuple(int(part) for part in version.split(".")[:3] if part.isdigit())
    if not _OLDEST <= numbers < _TOO_NEW:
        raise ImportError(
            f"pooledkafka needs kafka-python >=3.0.12,<3.1, but {version} is installed, whose network layer it does "
            "not know. Install a matching one: pip install 'kafka-python>=3.0.12,<3.1'"
        )
