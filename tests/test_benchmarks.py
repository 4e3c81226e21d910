"""What the benchmarks make of what they measured."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(BENCHMARKS)
    return import_module("figures")


@pytest.fixture
def measuring(monkeypatch: pytest.MonkeyPatch) -> Any:
    pytest.importorskip("psutil")
    monkeypatch.syspath_prepend(BENCHMARKS)
    return import_module("measuring")


def view(*numbers: int) -> frozenset[tuple[str, int]]:
    return frozenset(("topic", number) for number in numbers)


@pytest.mark.parametrize(
    ("views", "expected"),
    [
        ([view(0, 1), view(2, 3), view(4)], True),
        ([view(0, 1, 2, 3, 4), view(), view()], False),  # the first to come owns all
        ([view(0, 1, 2), view(3), view(4)], False),  # uneven
        ([view(0, 1), view(2, 3), view()], False),  # one has no owner
        ([view(0, 1), view(2, 3), view(3, 4)], False),  # one has two owners
    ],
)
def test_balanced(measuring: Any, views: list[frozenset[tuple[str, int]]], expected: bool) -> None:
    assert measuring.balanced(views, 5) is expected


def test_ratios_are_taken_within_a_round(figures: Any) -> None:
    results = [
        {"library": library, "round": number, "consumers": consumers, "ms": ms}
        for library, number, consumers, ms in [
            ("a", 0, 1, 2.0),
            ("a", 0, 50, 3.0),
            ("a", 1, 1, 10.0),
            ("a", 1, 50, 10.0),
            ("a", 2, 1, 5.0),  # a round that was cut short
            ("b", 0, 1, 1.0),
            ("b", 0, 50, 9.0),
        ]
    ]
    assert figures.ratios(results, "a", 50, 1, "ms") == [1.5, 1.0]


def test_a_group_that_never_balanced_is_not_hidden_in_the_median(figures: Any) -> None:
    results = [
        {"library": "a", "groups": 2, "balanced_s": times, "balanced_at_the_end": stayed, "errors": []}
        for times, stayed in [([0.2, 0.4], 2), ([0.2, None], 1), ([0.1, 0.2], 1)]
    ]
    assert figures.group_cell(results, "a", max) == (
        "0.30 (0.20 to 0.40), all balanced in 2 of 3 rounds, 1 no longer so at the end"
    )
