"""What kafka-python leaves behind where it is refused, or uses TLS."""

from __future__ import annotations

import gc
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["leaks_forgiven"]


@contextmanager
def leaks_forgiven() -> Iterator[None]:
    """Collect what kafka-python 3.0.12 leaves open, without a warning: sockets, and the client of a failed producer.

    Its log is off, because the records that pytest keeps would keep the sockets from being collected here.
    """
    logger = logging.getLogger("kafka")
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            yield
            gc.collect()
    finally:
        logger.setLevel(level)
