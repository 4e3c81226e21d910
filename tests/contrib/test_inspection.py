"""Pools are shown to their user, and to nobody else."""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pooledkafka import ConfigurationError, ConnectionPool
from pooledkafka.contrib.inspection import Inspection, runtime_directory, serve
from pooledkafka.testing import EmbeddedKafka
from tests.pooled.waiting import until


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / f"pooledkafka-{os.getuid()}"


@pytest.fixture
def inspection() -> Iterator[Inspection]:
    with serve() as inspection:
        yield inspection


def asked(path: str | Path) -> Any:
    with socket.socket(socket.AF_UNIX) as asking, asking.makefile("rb") as answer:
        asking.settimeout(10)
        asking.connect(str(path))
        return json.load(answer)


def threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name == "pooledkafka-inspection"]


def test_what_the_pools_hold(inspection: Inspection) -> None:
    with (
        EmbeddedKafka(1, listeners=["sasl_plain"]) as cluster,
        ConnectionPool(**cluster.client_options("sasl_plain"), client_id="inspected") as pool,
    ):
        answer = asked(inspection.path)
        assert answer["pid"] == os.getpid()
        (shown,) = [each for each in answer["pools"] if each["client_id"] == "inspected"]
        assert shown["state"] == "connected"
        assert shown["bootstrap_servers"] == cluster.client_options("sasl_plain")["bootstrap_servers"]
        assert shown["stats"]["connections"] == {
            str(node): dict(lanes) for node, lanes in pool.stats().connections.items()
        }
        assert pool.options["sasl_plain_password"] not in json.dumps(answer)


def test_only_the_user_may_open_it(inspection: Inspection, directory: Path) -> None:
    assert stat.S_IMODE(os.stat(inspection.path).st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert [each.name for each in directory.iterdir()] == [f"{os.getpid()}.sock"], "nothing is left of its making"


def test_it_is_gone_when_it_is_closed(inspection: Inspection, directory: Path) -> None:
    assert len(threads()) == 1
    inspection.close()
    inspection.close()
    until(threads, lambda left: not left)
    assert list(directory.iterdir()) == []
    with serve() as again:
        assert asked(again.path)["pid"] == os.getpid()


def test_a_file_that_is_no_socket_is_not_replaced(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("dear")
    with pytest.raises(ConfigurationError, match="is there, and is no socket"):
        serve(file)
    assert file.read_text() == "dear"


def test_it_goes_on_when_there_was_no_file_descriptor_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pooledkafka.contrib.inspection._PATIENCE_S", 0.01)
    accept, failures = socket.socket.accept, iter([OSError(errno.EMFILE, "Too many open files")])

    def accepted(listener: socket.socket) -> Any:
        for failure in failures:
            raise failure
        return accept(listener)

    monkeypatch.setattr(socket.socket, "accept", accepted)
    with serve() as inspection:
        assert asked(inspection.path)["pid"] == os.getpid()
        assert next(failures, None) is None, "it did fail"


def test_one_who_does_not_read_holds_up_nobody_for_long(inspection: Inspection) -> None:
    pools = [ConnectionPool(bootstrap_servers="x" * 5_000) for _ in range(200)]  # more than a socket's buffer holds
    with socket.socket(socket.AF_UNIX) as silent:
        silent.connect(inspection.path)
        assert len(asked(inspection.path)["pools"]) >= len(pools)


def test_a_path_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "shop.sock"
    with socket.socket(socket.AF_UNIX) as killed:
        killed.bind(str(path))  # of a process that was killed
    with serve(path) as inspection:
        assert inspection.path == str(path)
        assert asked(path)["pid"] == os.getpid()
        with pytest.raises(ConfigurationError, match="another process serves"):
            serve(path)
    with pytest.raises(ConfigurationError, match=r"no socket can be made at /nowhere/at/all\.sock"):
        serve("/nowhere/at/all.sock")


@pytest.mark.parametrize("wrong", ["open", "a file", "a link"])
def test_a_directory_that_is_not_ours_alone_is_refused(directory: Path, tmp_path: Path, wrong: str) -> None:
    if wrong == "open":
        directory.mkdir()
        directory.chmod(0o755)
    elif wrong == "a file":
        directory.touch(mode=0o600)
    else:
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        directory.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match="only its user"):
        runtime_directory()


FORKING = """
import os, sys
from pooledkafka import ConnectionPool
from pooledkafka.contrib.inspection import serve

pool = ConnectionPool(client_id="inherited")
inspection = serve(*sys.argv[1:])
ready, done = os.pipe(), os.pipe()
child = os.fork()
if not child:
    os.write(ready[1], b"x")
    os.read(done[0], 1)
    os._exit(0)
os.read(ready[0], 1)
print(os.getpid(), child, flush=True)
sys.stdin.read()
os.write(done[1], b"x")
os.waitpid(child, 0)
"""


@pytest.mark.parametrize("own_path", [False, True])
def test_a_forked_process_has_its_own(directory: Path, tmp_path: Path, own_path: bool) -> None:
    path = [str(tmp_path / "one.sock")] if own_path else []
    forking = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", FORKING, *path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert forking.stdout is not None
    parent, child = forking.stdout.readline().split()
    if own_path:
        assert asked(path[0])["pid"] == int(parent), "the parent keeps it"
    else:
        for pid in (parent, child):
            answer = asked(directory / f"{pid}.sock")
            assert answer["pid"] == int(pid)
            assert [pool["client_id"] for pool in answer["pools"]] == ["inherited"]
    forking.communicate(timeout=20)
    assert forking.returncode == 0
    left = [each.name for each in directory.iterdir()] if directory.exists() else []
    assert left == ([] if own_path else [f"{child}.sock"]), "the parent's goes with it; the child ended by _exit"
    assert not own_path or not os.path.exists(path[0])
