"""Shows at the end of a run what its tests measured."""

from __future__ import annotations

import pytest


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
