"""Runs the tests of the Django app in a process of their own, with Django's settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.django_process import run_pytest

pytest.importorskip("django")
pytest.importorskip("pytest_django")


def test_the_tests_of_the_django_app_pass() -> None:
    run_pytest(Path(__file__).parent / "django", "tests.contrib.django.settings", timeout_s=250)
