from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pooledkafka.testing._reaper import Reaper

LABEL = "pooledkafka.testing.run=abc"

# Stands in for the docker package in the reaper's process. The daemon is a directory: a file for each container and
# network, named after its kind and its label. It is down while the directory is absent.
DOCKER = """
import os
from pathlib import Path

DAEMON = Path(os.environ["FAKE_DAEMON"])

class Client:
    api = property(lambda self: self)
    def close(self): pass
    def containers(self, all, filters): return self.of("container", all and filters)
    def networks(self, filters): return self.of("network", filters)
    def of(self, kind, filters):
        names = [path.name for path in DAEMON.iterdir()]
        return [{"Id": name} for name in names if name.startswith(f"{kind} {filters['label']} ")]
    def remove_container(self, id, force, v):
        assert force and v
        (DAEMON / id).unlink()
    def remove_network(self, id):
        if self.of("container", {"label": id.split()[1]}):
            raise RuntimeError("the network has active endpoints")
        (DAEMON / id).unlink()

def from_env():
    list(DAEMON.iterdir())
    return Client()
"""

OWNER = """
import os, sys, time
from pooledkafka.testing._reaper import Reaper

reaper = Reaper(sys.argv[1], sys.argv[2])
if "fork" in sys.argv and os.fork() == 0:
    sys.stdin.read()
    os._exit(0)
print(reaper._process.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A daemon with a cluster of LABEL, and one of another run."""
    modules, daemon = tmp_path / "modules", tmp_path / "daemon"
    modules.mkdir()
    daemon.mkdir()
    (modules / "docker.py").write_text(DOCKER)
    monkeypatch.setenv("PYTHONPATH", str(modules), prepend=":")
    monkeypatch.setenv("FAKE_DAEMON", str(daemon))
    for run in (LABEL, LABEL + "d"):
        for name in ("container", "network"):
            for number in (1, 2):
                (daemon / f"{name} {run} {number}").touch()
    return daemon


@pytest.fixture
def files(tmp_path: Path) -> Path:
    directory = tmp_path / "files"
    directory.mkdir()
    (directory / "authority.pem").touch()
    return directory


def left(daemon: Path, run: str = LABEL) -> list[str]:
    return [path.name for path in daemon.iterdir() if path.name.split()[1] == run]


def eventually(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def owner(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", OWNER, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def ended(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return not status.exists() or "State:\tZ" in status.read_text()


@pytest.mark.parametrize("arguments", [[], ["fork"]], ids=["alone", "with a fork that lives on"])
def test_an_owner_that_is_killed(daemon: Path, files: Path, arguments: list[str]) -> None:
    with owner(LABEL, str(files), *arguments) as process:
        assert process.stdout is not None
        reaper = int(process.stdout.readline())
        process.kill()
        eventually(lambda: not left(daemon), "all that carries the label is removed")
        eventually(lambda: ended(reaper), "the reaper ends")
    assert len(left(daemon, LABEL + "d")) == 4
    assert not files.exists()


def test_an_owner_that_has_removed_all(daemon: Path, files: Path) -> None:
    with Reaper(LABEL, str(files)) as reaper:
        assert reaper._process.poll() is None
    assert reaper._process.returncode == 0
    # It believes its owner, and does not even look.
    assert len(left(daemon)) == 4
    assert files.exists()


def test_an_owner_that_could_not_remove_all(daemon: Path, files: Path) -> None:
    with pytest.raises(RuntimeError, match="the daemon"), Reaper(LABEL, str(files)) as reaper:
        raise RuntimeError("the daemon does not answer")
    assert reaper._process.returncode == 0
    assert left(daemon) == []


def test_a_daemon_that_is_down_for_a_while(daemon: Path, files: Path, tmp_path: Path) -> None:
    with owner(LABEL, str(files)) as process:
        assert process.stdout is not None
        reaper = int(process.stdout.readline())
        daemon.rename(tmp_path / "down")
        process.kill()
        eventually(lambda: not files.exists(), "the reaper is at work")
        (tmp_path / "down").rename(daemon)
        eventually(lambda: not left(daemon), "all that carries the label is removed")
        eventually(lambda: ended(reaper), "the reaper ends")


def test_what_the_daemon_was_still_making(daemon: Path, files: Path) -> None:
    for path in daemon.iterdir():
        path.unlink()
    with owner(LABEL, str(files)) as process:
        assert process.stdout is not None
        reaper = int(process.stdout.readline())
        process.kill()
        eventually(lambda: not files.exists(), "the reaper is at work")
        (daemon / f"container {LABEL} late").touch()
        eventually(lambda: ended(reaper), "the reaper ends")
    assert left(daemon) == []


def test_ctrl_c_is_not_for_the_reaper(files: Path) -> None:
    with Reaper(LABEL, str(files)) as reaper:
        fields = Path(f"/proc/{reaper._process.pid}/stat").read_text().rpartition(")")[2].split()
    session, group = int(fields[3]), int(fields[2])
    assert session == group == reaper._process.pid
