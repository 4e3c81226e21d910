"""What all integration tests share."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator

import pytest


@pytest.fixture
def sockets_left_to_the_collector() -> Iterator[None]:
    """Let the garbage collector complain here, and not in a test that is not to blame.

    kafka-python leaves the socket of a connection attempt that failed, or was given up, to the garbage collector. Tests
    in which that happens use this, and ignore PytestUnraisableExceptionWarning of sockets.
    """
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
