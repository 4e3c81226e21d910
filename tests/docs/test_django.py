"""Runs the examples of docs/django.md in the project of examples/django, in a process with its settings."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

pytest.importorskip("django")
pytest.importorskip("pytest_django")


def test_the_examples_of_the_page_on_django_run() -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider"),
            *("-W", "ignore:value_deserializer does not implement:DeprecationWarning"),  # functions do, too
            str(Path(__file__).with_name("django_page.py")),
        ],
        env={
            **{name: value for name, value in os.environ.items() if name != "BOOTSTRAP"},
            "DJANGO_SETTINGS_MODULE": "shop.settings",
            "PYTHONPATH": os.pathsep.join([str(ROOT / "examples" / "django"), os.environ.get("PYTHONPATH", "")]),
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
