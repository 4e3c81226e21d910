"""A Prometheus, where there is one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pooledkafka.testing._ports import pick_free_ports
from tests.pooled.waiting import until

__all__ = ["PROMTOOL", "Prometheus", "prometheus"]

PROMTOOL = shutil.which("promtool")


class Prometheus:
    """One that runs; asks it in PromQL."""

    def __init__(self, port: int) -> None:
        self._base = f"http://127.0.0.1:{port}"

    def ready(self) -> bool:
        """Whether it answers."""
        try:
            with urllib.request.urlopen(f"{self._base}/-/ready", timeout=5) as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.HTTPError):
            return False

    def query(self, promql: str) -> list[dict[str, Any]]:
        """The series that an expression yields now; raises HTTPError for one that it does not understand."""
        result: list[dict[str, Any]] = self._ask("query", query=promql)["result"]
        return result

    def rules(self) -> list[dict[str, Any]]:
        """The alerts that it knows, with what has become of them."""
        return [rule for group in self._ask("rules")["groups"] for rule in group["rules"]]

    def _ask(self, what: str, **parameters: str) -> Any:
        url = f"{self._base}/api/v1/{what}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]


@contextmanager
def prometheus(port_to_scrape: int, directory: Path, rules: Path | None = None) -> Iterator[Prometheus]:
    """Run one that scrapes a port of this machine each second; skips the test where none is installed."""
    command = shutil.which("prometheus")
    if command is None:
        if os.environ.get("POOLEDKAFKA_REQUIRE_PROMETHEUS"):
            pytest.fail("prometheus is not installed, and POOLEDKAFKA_REQUIRE_PROMETHEUS is set")
        pytest.skip("prometheus is not installed (Debian: apt-get install prometheus)")
    (port,) = pick_free_ports(1)
    configuration = directory / "prometheus.yml"
    configuration.write_text(
        "global: {scrape_interval: 1s, evaluation_interval: 1s}\n"
        f"rule_files: {[str(rules)] if rules else []}\n"
        "scrape_configs:\n"
        f"- {{job_name: test, static_configs: [{{targets: ['127.0.0.1:{port_to_scrape}']}}]}}\n"
    )
    with (
        open(directory / "prometheus.log", "wb") as log,
        subprocess.Popen(
            [
                command,
                f"--config.file={configuration}",
                f"--storage.tsdb.path={directory / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stdout=log,
            stderr=log,
        ) as process,
    ):
        try:
            server = Prometheus(port)
            until(lambda: server.ready() or process.poll() is not None)
            assert process.poll() is None, (directory / "prometheus.log").read_text()
            yield server
        finally:
            process.terminate()
            process.wait(30)
