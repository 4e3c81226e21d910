"""The short form of `reliability.broker_faults`: pooledkafka alone, few faults, the same promises."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pooledkafka.testing import KafkaCluster
from reliability.broker_faults import Plan, run
from reliability.fault_schedule import Kind, Pace


@pytest.mark.usefixtures("sockets_left_to_the_collector")
@pytest.mark.filterwarnings("ignore:Exception ignored.*<socket:pytest.PytestUnraisableExceptionWarning")
def test_nothing_is_lost_and_everybody_recovers(
    kafka_fault_cluster: KafkaCluster, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    kinds = [Kind.PAUSE, Kind.CUT_FROM_CLIENTS, Kind.MOVE_LEADERS, Kind.MOVE_COORDINATORS]
    plan = Plan(seed=7, seconds=120, kinds=kinds, pace=Pace((2.0, 4.0), (2.0, 3.0)), most_faults=4, last_calm_s=6.0)
    incidents, (outcome,) = run(kafka_fault_cluster, plan, tmp_path)
    recovery = outcome.recovery["all"]
    for name, figure in (
        ("faults", len(incidents)),
        ("acknowledged", outcome.findings.acknowledged),
        ("read", outcome.findings.read),
        ("read_again", outcome.findings.redelivered),
        ("errors", outcome.findings.errors.total()),
        ("no_acknowledgement_s", str(recovery.ack_silence)),
        ("nothing_read_s", str(recovery.read_silence)),
    ):
        record_property(name, figure)
    assert outcome.broken_promises() == []
    assert not outcome.findings.failed
