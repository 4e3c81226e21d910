"""Runs a server with the application, and asks it from many threads at once."""

from __future__ import annotations

import http.client
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import psutil

from integration.clients import eventually
from pooledkafka.testing._ports import pick_free_ports

__all__ = ["LINGERING", "Load", "Server"]

LINGERING = 20
"""How many records wait in the master's accumulator while it forks."""

_ROOT = Path(__file__).parents[2]


class Server:
    """A server's processes, with what they write to their standard error.

    Args:
        command: what to run; ``{port}`` stands for the port of 127.0.0.1 to serve.
        bootstrap_servers: the brokers.
        topic: where the application sends to.
        directory: for its log.
        in_master: whether the application uses its pool at import.
        environment: what another application than this package's is told by.
        ready: what it answers once it serves; None: whatever it answers there says so.
    """

    def __init__(
        self,
        command: list[str],
        bootstrap_servers: str,
        topic: str,
        directory: Path,
        *,
        in_master: bool = False,
        environment: Mapping[str, str] | None = None,
        ready: str | None = "/stats",
    ) -> None:
        (self.port,) = pick_free_ports(1)
        self._broker_ports = {int(address.rpartition(":")[2]) for address in bootstrap_servers.split(",")}
        self._log = directory / "server.log"
        self._acked = directory / "acked-in-master"
        self._acked.touch()
        self._ready = ready
        told = {
            # uWSGI starts itself again when it reloads, by the interpreter's path, which knows nothing of a venv.
            "PYTHONPATH": os.pathsep.join([str(_ROOT), *(path for path in sys.path if path.endswith("-packages"))]),
            "APP_BOOTSTRAP": bootstrap_servers,
            "APP_TOPIC": topic,
            "APP_MASTER": "1" if in_master else "",
            "APP_LINGERING": str(LINGERING),
            "APP_ACKED": str(self._acked),
        }
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [part.format(port=self.port) for part in command],
                cwd=directory,
                env={**os.environ, **told, **(environment or {})},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> Server:
        try:
            eventually(self._answers, 60, "the server answers")
        except BaseException:
            self.kill()
            raise AssertionError(f"the server did not start:\n{self.log()}") from None
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def _answers(self) -> bool:
        assert self.process.poll() is None, "it has ended"
        try:
            self.ask(self._ready or "/")
        except http.client.HTTPException:
            return self._ready is None
        except OSError:
            return False
        return True

    def kill(self) -> None:
        """End whatever is left of it."""
        left = self.processes()
        for process in left:
            if process.is_running():
                process.kill()
        psutil.wait_procs(left, timeout=10)
        self.process.wait(10)

    def processes(self) -> list[psutil.Process]:
        """The master and its workers."""
        try:
            master = psutil.Process(self.process.pid)
            return [master, *master.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def workers(self) -> set[int]:
        return {process.pid for process in self.processes()[1:] if _runs(process)}

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def terminate(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End it as an operator does; fails where that takes more than 30 s or leaves a process."""
        processes = self.processes()
        self.send(number)
        _, left = psutil.wait_procs(processes, timeout=30)
        assert not left, f"{left} did not end:\n{self.log()}"

    def ask(self, path: str, posted: Any = None, timeout_s: float = 40) -> dict[str, Any]:
        """One request on a connection of its own: a GET, or a POST of what is given, as JSON."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        try:
            if posted is None:
                connection.request("GET", path)
            else:
                connection.request("POST", path, json.dumps(posted), {"Content-Type": "application/json"})
            response = connection.getresponse()
            told = response.read()
            if response.status not in (200, 202):
                raise http.client.HTTPException(f"{response.status}: {told!r}")
            answer: dict[str, Any] = json.loads(told)
            return answer
        finally:
            connection.close()

    def ask_each_worker(self, path: str, count: int) -> dict[int, dict[str, Any]]:
        """The answers of ``count`` workers, by process id."""
        answers: dict[int, dict[str, Any]] = {}

        def asked() -> bool:
            answer = self.ask(path)
            answers.setdefault(answer["pid"], answer)
            return len(answers) >= count

        eventually(asked, 60, f"{count} workers have answered {path}")
        return answers

    def sockets(self) -> dict[int, Counter[int]]:
        """How many connections each process holds to each broker, by process id and the broker's port."""
        found = {}
        for process in self.processes():
            try:
                sockets = process.net_connections("tcp")
            except psutil.NoSuchProcess:
                continue
            to = [each.raddr.port for each in sockets if each.raddr and each.status == "ESTABLISHED"]
            found[process.pid] = Counter(port for port in to if port in self._broker_ports)
        return found

    def connections(self) -> dict[int, int]:
        """The most connections to one broker that each process holds, by process id."""
        return {pid: max(by_broker.values(), default=0) for pid, by_broker in self.sockets().items()}

    def acked_in_master(self) -> list[str]:
        return self._acked.read_text().split()

    def wait_for_what_lingered(self) -> None:
        """Wait until every process that has used the pool at import has delivered what lingered there."""

        def delivered() -> bool:
            acked = [value.split("-") for value in self.acked_in_master()]
            lives = Counter(life for kind, life, _ in acked if kind == "lingering")
            return all(lives[life] == LINGERING for _, life, _ in acked)

        eventually(delivered, 60, "what lingered is sent by the process that has made it")

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def complaints(self) -> list[str]:
        """Lines of the log that tell of something wrong."""
        wrong = re.compile(r"Traceback|ERROR|CRITICAL|WARNING|Exception|Error\b|Fatal|DAMN")
        # What kafka-python says of anything that takes long, as all does where few cores have to do for many processes,
        # and of a cluster whose first groups come while it makes the topic for their offsets.
        usual = re.compile(r"It is blocking the event loop|Marking the coordinator dead .*NotCoordinatorError")
        # uWSGI starts itself anew by closing all files, whatever its threads do with them, and exec. When it is told to
        # end, it does, whatever requests its threads have.
        restart_or_end = r"closing all non-uwsgi socket fds.*?Starting uWSGI|SIGINT/SIGTERM received.*"
        log = re.sub(restart_or_end, "", self.log(), flags=re.DOTALL)
        return [line for line in log.splitlines() if wrong.search(line) and not usual.search(line)]


def _runs(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _by_query(server: Server, value: str) -> dict[str, Any]:
    return server.ask(f"/send?value={value}")


class Load:
    """Asks the server, from several threads, to send records; each has a value of its own and is asked for once.

    Args:
        server: which.
        threads: how many ask at a time.
        ask: sends one request for a record with that value; the answer, which tells the worker's ``pid``, means that it
            is acknowledged.
    """

    def __init__(
        self, server: Server, threads: int = 8, ask: Callable[[Server, str], dict[str, Any]] = _by_query
    ) -> None:
        self._server = server
        self._ask = ask
        self._numbers = itertools.count()
        self._over = threading.Event()
        self.acked: list[str] = []  # appended to by any thread
        self.unknown: list[str] = []  # the request failed, but the record may be there
        self.errors: list[str] = []
        self.pids: set[int] = set()
        self.took_s: list[float] = []  # until each was acknowledged, the request's connection included
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        while not self._over.is_set():
            value = f"load-{id(self)}-{next(self._numbers)}"
            asked = time.monotonic()
            try:
                self.pids.add(self._ask(self._server, value)["pid"])
            except ConnectionRefusedError:
                self._over.wait(0.05)  # until the server is back, or this load over
            except (OSError, http.client.HTTPException) as error:
                self.unknown.append(value)
                self.errors.append(f"{time.monotonic():.1f} {error!r}")
            else:
                self.took_s.append(time.monotonic() - asked)
                self.acked.append(value)

    def go_on(self, records: int) -> None:
        """Wait until that many more records are acknowledged."""
        enough = len(self.acked) + records
        eventually(lambda: len(self.acked) >= enough, 60, f"{records} more records are sent; {self.errors[-3:]}")

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a request hangs"
