"""Removes what a cluster made when the process that made it dies without doing so, even by SIGKILL.

A child process waits on a pipe whose other end only the owner holds; the kernel closes it, however the owner ends. The
file is run as a script, so it imports nothing of the package, and the docker package only when there is work.
"""

from __future__ import annotations

import importlib
import os
import select
import shutil
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

_DONE = b"done"
_PARENT_CHECK_S = 1.0
_SWEEP_PAUSE_S = 1.0
_GIVE_UP_S = 120.0
_WAIT_S = 5.0


class Reaper:
    """The owner's end. Not thread-safe; a forked child of the owner must not use it."""

    def __init__(self, label: str, directory: str) -> None:
        """Start watching: on the owner's death, all that carries `label` is removed, and the directory."""
        # A session of its own: Ctrl-C and a closing terminal signal the owner's. No output: a reader of the owner's
        # would wait for the reaper too. The write end is close-on-exec, so the owner's other children do not hold it.
        self._process = subprocess.Popen(
            [sys.executable, __file__, label, directory, str(os.getpid())],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )

    def __enter__(self) -> Reaper:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End it, as everything is removed already; or, on an error, leave it what the owner could not remove."""
        if error is None:
            self._process.communicate(_DONE)
        else:
            with suppress(subprocess.TimeoutExpired):  # it goes on by itself for as long as it takes
                self._process.communicate(timeout=_WAIT_S)


def watch(label: str, directory: str, owner: int) -> None:
    """The child's life: wait for the owner to say that it is done, or to die; in that case clean up."""
    # A fork of the owner inherits the pipe and may outlive it: its end is not the only sign of the owner's death.
    while not select.select([sys.stdin], [], [], _PARENT_CHECK_S)[0]:
        if os.getppid() != owner:
            break
    else:
        if os.read(sys.stdin.fileno(), len(_DONE)) == _DONE:
            return
    shutil.rmtree(directory, ignore_errors=True)
    docker = importlib.import_module("docker")
    give_up_at = time.monotonic() + _GIVE_UP_S
    while time.monotonic() < give_up_at:
        try:
            with closing(docker.from_env()) as client:
                _sweep_until_clean(client, label)
            return
        except Exception:  # the daemon is busy, restarting or gone: nobody is left to tell, so try again
            time.sleep(_SWEEP_PAUSE_S)


def _sweep_until_clean(client: Any, label: str) -> None:
    # Never only once: the daemon may still be making what the owner asked for just before it died.
    _sweep(client, label)
    time.sleep(_SWEEP_PAUSE_S)
    while _sweep(client, label):
        time.sleep(_SWEEP_PAUSE_S)


def _sweep(client: Any, label: str) -> bool:
    """Remove what carries the label; return whether there was anything."""
    filters = {"label": label}
    containers = client.api.containers(all=True, filters=filters)
    for container in containers:
        # With v=True go its anonymous volumes; the cluster makes no others.
        client.api.remove_container(container["Id"], force=True, v=True)
    networks = client.api.networks(filters=filters)
    for network in networks:
        client.api.remove_network(network["Id"])
    return bool(containers or networks)


if __name__ == "__main__":
    # Not from the script's own directory: a module of this package could be taken for one of another package.
    here = str(Path(__file__).resolve().parent)
    sys.path[:] = [entry for entry in sys.path if entry != here]
    watch(sys.argv[1], sys.argv[2], int(sys.argv[3]))
