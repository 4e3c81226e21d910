"""Runs pytest in a process with the settings of a Django project, which a process can have one of."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

__all__ = ["run_pytest"]

_ROOT = Path(__file__).parent.parent


def run_pytest(
    path: Path, settings: str, *options: str, timeout_s: float, environment: Mapping[str, str] = os.environ
) -> None:
    """Run the tests at ``path``, and fail with what they say where one fails."""
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", *options, str(path)],
        env={**environment, "DJANGO_SETTINGS_MODULE": settings},
        cwd=_ROOT,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
