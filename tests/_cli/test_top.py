"""``top`` shows what processes show."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pooledkafka import Consumer
from pooledkafka.contrib.inspection import Inspection, runtime_directory, serve
from pooledkafka.testing import EmbeddedKafka
from tests._cli.conftest import Command, Start


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


@pytest.fixture
def shown(cluster: EmbeddedKafka) -> Iterator[Inspection]:
    """This process with a consumer that reads."""
    with (
        serve() as inspection,
        Consumer("watched", bootstrap_servers=cluster.bootstrap_servers, client_id="till", group_id="g") as consumer,
    ):
        consumer.poll(100)
        yield inspection


def test_the_pools(command: Command, shown: Inspection) -> None:
    (process,) = command("top", "--once", "--json").json
    assert process["pid"] == os.getpid()
    (pool,) = [each for each in process["pools"] if each["client_id"] == "till"]
    assert pool["stats"]["consumers"] == 1
    result = command("top")
    assert result.code == 0
    (line,) = [line for line in result.out.splitlines() if "till" in line and "connected" in line]
    assert line.split()[0] == str(os.getpid())
    assert "control" in result.out, "and the connections by broker and lane"
    for which in (("--pid", str(os.getpid())), ("--socket", shown.path)):
        assert command("top", "--once", "--json", *which).json[0]["pid"] == os.getpid()


def test_no_process(command: Command) -> None:
    for which in ((), ("--pid", "1"), ("--socket", "/nowhere")):
        result = command("top", "--once", *which)
        assert result.code == 1
        assert "no process shows its pools" in result.err
        assert result.out == ""


def test_a_socket_of_a_process_that_was_killed_is_removed(command: Command) -> None:
    script = "import os\nfrom pooledkafka.contrib.inspection import serve\ni = serve()\nos._exit(0)"
    subprocess.run([sys.executable, "-c", script], check=True)
    assert len(list(runtime_directory().iterdir())) == 1
    assert command("top", "--once").code == 1
    assert list(runtime_directory().iterdir()) == []


def test_a_file_that_is_no_socket_is_left_alone(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("dear")
    assert command("top", "--once", "--socket", str(file)).code == 1
    assert file.read_text() == "dear"


def test_it_looks_again_and_again(shown: Inspection, start: Start) -> None:
    watching = start("top", "--json", "--interval", "0.1", stdout=subprocess.PIPE)
    assert watching.stdout is not None
    assert all(b'"client_id": "till"' in watching.stdout.readline() for _ in range(3))
    watching.send_signal(signal.SIGINT)
    _, said = watching.communicate(timeout=20)
    assert (watching.returncode, said) == (130, b"")
