"""Runs the examples of docs/django.md in the project of examples/django, in a process with its settings."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.django_process import run_pytest
from tests.docs.pages import ROOT

pytest.importorskip("django")
pytest.importorskip("pytest_django")


def test_the_examples_of_the_page_on_django_run() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "BOOTSTRAP"}
    path = [str(ROOT / "examples" / "django"), environment.get("PYTHONPATH", "")]
    run_pytest(
        Path(__file__).with_name("django_page.py"),
        "shop.settings",
        *("-W", "ignore:value_deserializer does not implement:DeprecationWarning"),  # functions do, too
        timeout_s=120,
        environment={**environment, "PYTHONPATH": os.pathsep.join(path)},
    )
