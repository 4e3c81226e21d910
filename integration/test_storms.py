"""The short form of `reliability.storms`: pooledkafka alone, few clients, one outage, the same bounds."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pooledkafka.testing import KafkaCluster
from reliability.sniffing import SnifferUnavailableError
from reliability.storms import broken_promises, parsed, run


@pytest.mark.kafka_faults(brokers=1)
def test_a_broker_that_is_down_is_not_stormed(
    kafka_fault_cluster: KafkaCluster, record_property: Callable[[str, object], None]
) -> None:
    arguments = parsed(["--clients", "20", "--faults", "killed", "--outage", "4", "--interval", "1"])
    try:
        start, (figures,) = run(kafka_fault_cluster, arguments, "pooledkafka")
    except SnifferUnavailableError as error:
        pytest.skip(str(error))
    for name in ("attempts", "peak_attempts_a_second", "attempts_after", "opened_after_to_one", "all_served_after_s"):
        record_property(name, getattr(figures, name))
    assert start.consumers == 15
    assert figures.attempts, "nobody tried, so nothing was counted"
    assert broken_promises(figures, pools=1) == []
