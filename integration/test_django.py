"""Real ``manage.py`` processes on the session's brokers: what they do, and how they end."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from integration.clients import eventually

pytest.importorskip("django")

ROOT = Path(__file__).parent.parent
MANAGE = ROOT / "integration" / "servers" / "django_project" / "manage.py"
EXAMPLE = ROOT / "examples" / "django"


class Project:
    """A Django project with a database and a topic of its own."""

    def __init__(self, bootstrap_servers: str, topic: str, path: Path) -> None:
        self._path = path
        self.database = path / "db.sqlite3"
        self.go = path / "go"
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("DJANGO")},
            "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
            "DATABASE": str(self.database),
            "BOOTSTRAP": bootstrap_servers,
            "TOPIC": topic,
            "GO": str(self.go),
        }
        self.topic = topic
        self._processes: list[subprocess.Popen[str]] = []

    def manage(self, *arguments: str, given: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(MANAGE), *arguments],
            env={**self.environment, **environment},
            input=given,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    def done(self, *arguments: str, given: str = "") -> str:
        """The output of a command that succeeds."""
        process = self.manage(*arguments, given=given)
        assert process.returncode == 0, process.stdout + process.stderr
        return process.stdout

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        with (self._path / f"{len(self._processes)}.err").open("w") as errors:
            process = subprocess.Popen(
                [sys.executable, str(MANAGE), *arguments],
                env=self.environment,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        self._processes.append(process)
        return process

    def said(self, process: subprocess.Popen[str]) -> str:
        """What a process that was started has written to its standard error so far."""
        return (self._path / f"{self._processes.index(process)}.err").read_text()

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.database, timeout=20)) as database:
            return list(database.execute(query))

    def entered(self, handler: str = "enter") -> list[str]:
        return [
            value for (value,) in self.rows(f"select value from ledger_entry where handler = '{handler}' order by id")
        ]

    def lag(self, handler: str) -> int | None:
        status = json.loads(self.done("kafka_status", "--json"))["default"]
        lag: int | None = status["groups"][f"{self.topic}.{handler}"][self.topic]["lag"]
        return lag

    def end(self) -> None:
        for process in self._processes:
            with suppress(ProcessLookupError):  # a reloader's child is in its group
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.fixture
def project(kafka_bootstrap_servers: str, kafka_topic: str, tmp_path: Path) -> Iterator[Project]:
    project = Project(kafka_bootstrap_servers, kafka_topic, tmp_path)
    project.done("migrate", "--verbosity", "0")
    yield project
    project.end()


def ended(process: subprocess.Popen[str]) -> int:
    """The exit code of a process that ends by itself."""
    process.communicate(timeout=40)
    return process.returncode


def holding(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "holding\n"


def test_migrate_and_check_need_no_cluster(tmp_path: Path) -> None:
    project = Project("127.0.0.1:1", "nothing", tmp_path)
    project.done("migrate", "--verbosity", "0")
    project.done("check", "--fail-level", "WARNING")
    project.done("makemigrations", "--check", "--dry-run")
    for command in ("kafka_consume", "kafka_produce", "kafka_status", "kafka_relay_outbox"):
        assert "--help" in project.done(command, "--help")


def test_a_cluster_that_is_not_there_is_an_error_in_one_line(tmp_path: Path) -> None:
    project = Project("127.0.0.1:1", "nothing", tmp_path)
    status = project.manage("kafka_status", "--timeout", "1")
    assert status.returncode == 1
    assert "cannot reach the cluster of default" in status.stderr
    produce = project.manage("kafka_produce", "orders", "--value", "x")
    assert produce.returncode == 1
    assert "127.0.0.1:1" in produce.stderr
    assert "Traceback" not in status.stderr + produce.stderr


def test_lines_are_produced_and_handled_and_the_lag_is_told(project: Project) -> None:
    project.done("kafka_produce", project.topic, given="one\ntwo\nthree\n")
    consume = project.start("kafka_consume")
    eventually(lambda: len(project.entered()) == len(project.entered("exact")) == 3, 60, "both handlers have all")
    consume.send_signal(signal.SIGTERM)
    assert ended(consume) == 0
    assert project.entered() == project.entered("exact") == ["one", "two", "three"]
    assert project.lag("enter") == project.lag("exact") == 0
    project.done("kafka_produce", project.topic, "--value", "four", "--key", "k", "--header", "a=b")
    assert project.lag("enter") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_handler_finish_its_record(project: Project, number: signal.Signals) -> None:
    project.done("kafka_produce", project.topic, given="one\nhold\nthree\nfour\n")
    consume = project.start("kafka_consume", "enter")
    holding(consume)
    consume.send_signal(number)
    with pytest.raises(subprocess.TimeoutExpired):
        consume.wait(1)  # it waits for the handler
    project.go.touch()
    assert ended(consume) == 0
    assert project.entered() == ["one", "hold"]
    assert project.lag("enter") == 2, "what was handled is committed"
    again = project.start("kafka_consume", "enter")
    eventually(lambda: len(project.entered()) == 4, 60, "the rest is handled")
    again.send_signal(signal.SIGTERM)
    assert ended(again) == 0
    assert project.entered() == ["one", "hold", "three", "four"]


@pytest.mark.parametrize("hard", ["second signal", "SIGKILL"])
@pytest.mark.parametrize("handler", ["enter", "exact"])
def test_a_process_that_dies_in_a_record_has_it_again(project: Project, handler: str, hard: str) -> None:
    project.done("kafka_produce", project.topic, given="one\nhold\nthree\n")
    consume = project.start("kafka_consume", handler)
    holding(consume)
    if hard == "SIGKILL":
        consume.kill()
        assert ended(consume) == -signal.SIGKILL
    else:
        consume.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            consume.wait(0.5)
        consume.send_signal(signal.SIGTERM)
        assert ended(consume) == 128 + signal.SIGTERM
    project.go.touch()
    again = project.start("kafka_consume", handler)
    eventually(lambda: "three" in project.entered(handler), 90, "the rest is handled")
    again.send_signal(signal.SIGTERM)
    assert ended(again) == 0
    entered = project.entered(handler)
    if handler == "exact":
        assert entered == ["one", "hold", "three"], "exactly once, whatever was killed"
    else:
        assert set(entered) == {"one", "hold", "three"}
        assert entered.count("hold") == 2, "what it wrote was committed at once, and the offset was not"


def test_a_handler_that_fails_ends_the_command_with_the_record_and_an_exit_code(project: Project) -> None:
    project.done("kafka_produce", project.topic, given="one\nfail\nthree\n")
    consume = project.start("kafka_consume")
    assert ended(consume) == 1
    assert (
        f"CommandError: handler 'enter' (group '{project.topic}.enter') failed at {project.topic}[0]@1: "
        "LookupError: no such account" in project.said(consume)
    )
    assert project.lag("enter") == 2


def test_with_autoreload_it_begins_anew_when_the_code_has_changed(project: Project) -> None:
    project.done("kafka_produce", project.topic, "--value", "one")
    consume = project.start("kafka_consume", "enter", "--autoreload")
    eventually(lambda: project.entered() == ["one"], 60, "it handles")
    handlers = MANAGE.parent / "ledger" / "kafka.py"

    def begun_anew() -> bool:
        handlers.touch()  # again and again, for the reloader may not have had its first look at the files yet
        return project.said(consume).count("enter: ") > 1

    eventually(begun_anew, 60, "a second process has begun")
    project.done("kafka_produce", project.topic, "--value", "two")
    eventually(lambda: project.entered() == ["one", "two"], 60, "the new process goes on from there")
    os.killpg(consume.pid, signal.SIGINT)  # as Ctrl-C does
    ended(consume)
    assert project.lag("enter") == 0


def test_once_handles_all_that_is_there(project: Project) -> None:
    project.done("kafka_produce", project.topic, given="one\ntwo\n")
    project.done("kafka_consume", "--once")
    project.done("kafka_consume", "--once")
    assert project.entered() == project.entered("exact") == ["one", "two"]


def test_the_outbox_is_relayed_in_order(project: Project) -> None:
    project.done("add_events", "one", "two", "three")
    project.done("kafka_relay_outbox", "--once", "--batch-size", "2")
    relay = project.start("kafka_relay_outbox", "--interval", "0.1")
    project.done("add_events", "four", "five")
    eventually(lambda: not project.rows("select id from pooledkafka_outboxrecord"), 60, "all is sent")
    relay.send_signal(signal.SIGTERM)
    assert ended(relay) == 0
    consume = project.start("kafka_consume", "enter")
    eventually(lambda: len(project.entered()) == 5, 60, "all is handled")
    consume.send_signal(signal.SIGTERM)
    assert ended(consume) == 0
    assert project.entered() == ["one", "two", "three", "four", "five"]


def in_example(environment: dict[str, str], *command: str) -> str:
    """Run Python in the example's directory; what it printed."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=EXAMPLE,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "command",
    [
        ["manage.py", "test"],
        [
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--rootdir",
            ".",
            "-c",
            os.devnull,
            "--ds",
            "shop.settings",
            "orders/tests.py",
        ],
    ],
    ids=["manage.py test", "pytest-django"],
)
def test_the_tests_of_the_example_pass(project: Project, command: list[str]) -> None:
    environment = {name: value for name, value in project.environment.items() if name != "BOOTSTRAP"}
    environment["PYTHONPATH"] = os.pathsep.join([str(EXAMPLE), environment["PYTHONPATH"]])
    in_example(environment, *command)


def test_the_demo_of_the_example_works(project: Project, tmp_path: Path) -> None:
    environment = {**project.environment, "DATABASE": str(tmp_path / "example.sqlite3")}
    del environment["BOOTSTRAP"]
    for command, expected in (
        ("migrate", ""),
        ("demo", "3 orders, 3 invoices, 1 refunds"),
        ("demo", "6 orders, 6 inv"),
    ):
        assert expected in in_example(environment, "manage.py", command)
