"""What tests of the embedded cluster share; each module has a cluster of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pooledkafka.testing import EmbeddedKafka
from tests.testing._embedded.wire import Wire


@pytest.fixture
def wire(cluster: EmbeddedKafka) -> Iterator[Wire]:
    """A connection to the first broker of the module's ``cluster``."""
    with Wire(cluster.address_of(1)) as wire:
        yield wire
