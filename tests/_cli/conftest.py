"""Runs commands, in this process or another, on embedded brokers."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from pooledkafka._cli import main
from pooledkafka.testing import EmbeddedKafka

Command = Callable[..., "Result"]
Start = Callable[..., "subprocess.Popen[bytes]"]


class Result(NamedTuple):
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@pytest.fixture(scope="module")
def cluster() -> Iterator[EmbeddedKafka]:
    """Of two brokers; the tests of a module have topics and groups of their own on it."""
    with EmbeddedKafka(brokers=2, config={"auto.create.topics.enable": "true"}) as cluster:
        yield cluster


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs a command to its end."""

    def run(*arguments: str, stdin: bytes = b"", **environment: str) -> Result:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        for name, value in environment.items():
            monkeypatch.setenv(f"POOLEDKAFKA_{name}", value)
        capfd.readouterr()
        code = main(arguments)
        return Result(code, *capfd.readouterr())

    return run


@pytest.fixture
def start(cluster: EmbeddedKafka) -> Iterator[Start]:
    """Starts a command in a process of its own, which ends with the test at the latest.

    One that lived on would look for its brokers where those of other tests are then.
    """
    started: list[subprocess.Popen[bytes]] = []

    def start(*arguments: str, **how: Any) -> subprocess.Popen[bytes]:
        environment = {**os.environ, "POOLEDKAFKA_BOOTSTRAP": cluster.bootstrap_servers}
        command = [sys.executable, "-m", "pooledkafka", *arguments]
        started.append(subprocess.Popen(command, env=environment, **{"stderr": subprocess.PIPE, **how}))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        with process:  # closes its pipes
            pass
