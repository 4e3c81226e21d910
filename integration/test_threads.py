"""Many threads at once, on embedded brokers in a process of their own: the short form of ``reliability.threads``."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

LIMIT_S = 240


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "reliability.threads", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)


def test_64_threads_make_use_and_close_clients(tmp_path: Path, record_property: Callable[[str, object], None]) -> None:
    file = tmp_path / "threads.json"
    done = run("--threads", "64", "--minutes", "0.3", "--restart-every", "5", "--bound", "120", "--json", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    result = json.loads(file.read_text())
    assert result["acknowledged"] > 0
    assert result["read"] > 0
    assert result["restarts"] > 0
    record_property("operations", sum(result["operations"].values()))
    record_property("records acknowledged", result["acknowledged"])
    record_property("longest call, s", round(max(result["longest"].values()), 1))


def test_a_thread_that_is_stuck_is_shown_with_the_stacks_of_all() -> None:
    done = run("--threads", "4", "--minutes", "0.3", "--bound", "0.01")
    assert done.returncode == 1
    assert "STUCK: thread" in done.stderr
    assert "--- worker-3" in done.stderr
