"""Checks the library's locks in all tests, and shows at the end of a run what its tests measured."""

from __future__ import annotations

import os
from collections.abc import Iterator

os.environ.setdefault("POOLEDKAFKA_DEBUG", "1")  # before the package is imported; what tests start has it too

import pytest

from pooledkafka import _locks


@pytest.fixture(autouse=True)
def lock_order() -> Iterator[None]:
    """Fail what has broken the order of the locks, on whatever thread."""
    assert _locks.DEBUG, "pooledkafka was imported before conftest.py could turn on its debug mode"
    yield
    found, _locks.violations[:] = list(_locks.violations), []
    assert not found, "\n".join(found)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what tests gave to ``record_property``: the figures of the scenarios that are tests."""
    tests = [
        (report.nodeid, report.user_properties)
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        if report.user_properties
    ]
    if tests:
        terminalreporter.section("figures")
        for test, properties in tests:
            terminalreporter.line(f"{test}: " + ", ".join(f"{name} {value}" for name, value in properties))
