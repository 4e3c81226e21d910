"""What a pool counts, step by step."""

from __future__ import annotations

import pytest

from pooledkafka._wire.tally import MeasuredDurations, Tally
from pooledkafka.stats import DURATION_BOUNDS_MS


def test_what_is_open_has_ended_when_its_engine_has() -> None:
    tally = Tally()
    tally.created.update({(1, "control"): 3, (2, "control"): 1})
    tally.closed.update({(1, "control", "idle"): 1, (1, "control", "failed"): 1, (2, "control", "disconnect"): 1})
    tally.settle()
    tally.settle()
    assert tally.closed[1, "control", "disconnect"] == 1
    assert tally.created.total() == tally.closed.total()


def test_nothing_waits_when_its_engine_has_ended_though_it_ends_later() -> None:
    tally = Tally()
    before = tally.waits_for_turn
    began = before.begin()
    before.end(before.begin())
    tally.settle()
    before.end(began)
    assert (tally.waits_for_turn.now, tally.waits_for_turn.count) == (0, 1)


@pytest.mark.parametrize(
    ("milliseconds", "at"), [(0, 0), (1, 0), (1.001, 1), (30_000, 13), (30_001, 14), (1e9, len(DURATION_BOUNDS_MS))]
)
def test_a_duration_is_counted_below_its_bound(milliseconds: float, at: int) -> None:
    durations = MeasuredDurations()
    durations.add(milliseconds / 1000)
    assert [number for number, count in enumerate(durations.counts) if count] == [at]
