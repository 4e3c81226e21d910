"""All clients of a pool wait for one metadata: no broker may keep it from them."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from pooledkafka.testing import EmbeddedKafka, Never
from tests.pooled.reading import Reader
from tests.pooled.watching import POOL
from tests.pooled.writing import Writer


def test_where_brokers_go_silent_the_next_one_is_asked(
    cluster: EmbeddedKafka, reader: Callable[..., Reader], writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(random, "shuffle", lambda nodes: nodes.sort(reverse=True))  # the last is asked first
    cluster.create_topic("orders", assignment=[[1], [2], [3]])
    reader("orders").is_assigned(3)  # the pool is connected to all brokers, and each looks as good as the others
    cluster.create_topic("payments", assignment=[[1]])
    written = writer.write("payments", 3)
    # Those two never answer, nor to anything behind it, and their connections are closed after 30 s.
    silent = [cluster.intercept("Metadata", Never(), node_id=node_id, client_id=POOL) for node_id in (2, 3)]
    reader("payments").gets(written)
    for broker in silent:
        broker.wait_for(1)
