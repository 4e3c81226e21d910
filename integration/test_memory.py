"""The short form of ``reliability.memory``: pooledkafka alone, on a small scale, the same promises."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from pooledkafka.testing import KafkaCluster
from reliability.memory import BROKER_CONFIG, SCENARIOS, broken_promises, measure


@pytest.mark.kafka_faults(brokers=1, config=BROKER_CONFIG)
@pytest.mark.parametrize("scenario", list(SCENARIOS))
def test_no_more_is_held_than_is_promised(
    kafka_fault_cluster: KafkaCluster, scenario: str, record_property: Callable[[str, object], None]
) -> None:
    broken = []
    for number, case in enumerate(SCENARIOS[scenario](kafka_fault_cluster.bootstrap_servers, True)):
        if case.library == "pooledkafka":
            figures = measure(case)
            broken += broken_promises(case, figures)
            for name in sorted(figures.keys() & {"peak", "read_ahead", "read", "rate_alone", "rate_beside"}):
                record_property(f"{name} of case {number}", figures[name])
    assert broken == []
