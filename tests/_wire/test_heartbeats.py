"""When heartbeats are sent, by a clock of the test."""

from __future__ import annotations

from collections import Counter

import kafka.coordinator.heartbeat as kafka_heartbeat
import pytest

import pooledkafka._wire.heartbeats as heartbeats_module
from pooledkafka._wire.heartbeats import BeatInTurn
from tests._wire.staged_consumer import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(kafka_heartbeat, "time", clock)
    monkeypatch.setattr(heartbeats_module, "time", clock)
    return clock


def beats(heartbeat: BeatInTurn, clock: Clock, count: int, late_s: float = 0.001) -> list[float]:
    """When it beats from now on, by an event loop that is late by so much."""
    at = []
    for _ in range(count):
        clock.now += heartbeat.time_to_next_heartbeat() + late_s
        assert heartbeat.should_heartbeat()
        heartbeat.sent_heartbeat()
        at.append(clock.now)
    return at


def test_many_beat_at_twelve_moments_each_once_an_interval(clock: Clock) -> None:
    begun_at = clock.now
    at: Counter[float] = Counter()
    for number in range(240):
        clock.now = begun_at + number * 0.01
        for beat in beats(BeatInTurn(heartbeat_interval_ms=3_000), clock, 5):
            at[round(beat % 3.0, 2) % 3.0] += 1
    assert len(at) == 12
    assert max(at.values()) < 5 * 240 / 4, "no moment has most of them"


def test_it_beats_once_an_interval_however_late_the_loop_is(clock: Clock) -> None:
    heartbeat = BeatInTurn(heartbeat_interval_ms=3_000)
    beats(heartbeat, clock, 1)
    before = clock.now
    assert beats(heartbeat, clock, 3) == pytest.approx([before + 3, before + 6, before + 9], abs=0.01)
    late = beats(heartbeat, clock, 1, late_s=1.5)[0]
    assert beats(heartbeat, clock, 2) == pytest.approx([late + 1.5, late + 4.5], abs=0.01)


@pytest.mark.parametrize("interval_ms", [50, 1_000, 3_000])
def test_it_never_waits_longer_than_kafka_pythons(clock: Clock, interval_ms: int) -> None:
    for step in range(50):
        clock.now += step * 0.0137
        heartbeat = BeatInTurn(heartbeat_interval_ms=interval_ms)
        for _ in range(3):
            assert 0 <= heartbeat.time_to_next_heartbeat() <= interval_ms / 1000
            beats(heartbeat, clock, 1)


def test_after_one_that_failed_the_next_comes_as_kafka_pythons(clock: Clock) -> None:
    heartbeat = BeatInTurn(heartbeat_interval_ms=3_000, retry_backoff_ms=100)
    beats(heartbeat, clock, 1)
    heartbeat.fail_heartbeat()
    assert heartbeat.time_to_next_heartbeat() == pytest.approx(0.1)
