"""Runs the tests of the Django app in a process of their own, with Django's settings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("django")
pytest.importorskip("pytest_django")

HERE = Path(__file__).parent


def test_the_tests_of_the_django_app_pass() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", str(HERE / "django")],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.contrib.django.settings"},
        cwd=HERE.parent.parent,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
