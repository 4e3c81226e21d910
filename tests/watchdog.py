"""Fails what hangs, and says where every thread was."""

from __future__ import annotations

import faulthandler
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

__all__ = ["Child", "Ended", "bounded", "child", "report_on_signal", "stacks"]

_DUMPED_WITHIN_S = 5.0


def report_on_signal() -> None:
    """Let this process write the stacks of all threads to its standard error when its watchdog asks for them.

    And let it heed SIGINT, which processes that a shell has started in the background ignore, and their children.
    """
    signal.signal(signal.SIGINT, signal.default_int_handler)
    faulthandler.register(signal.SIGUSR1, all_threads=True)


def stacks() -> str:
    """Where every thread of this process is now."""
    frames, names = sys._current_frames(), {thread.ident: thread.name for thread in threading.enumerate()}
    lines = []
    for ident, frame in frames.items():
        lines.append(f"thread {names.get(ident, ident)}:")
        at = frame
        while at is not None:
            lines.append(f"  {at.f_code.co_filename}:{at.f_lineno} in {at.f_code.co_name}")
            at = at.f_back  # type: ignore[assignment]
    return "\n".join(lines)


def bounded(call: Callable[[], object], within_s: float, what: str) -> float:
    """Run ``call`` on a thread; fails with all stacks where it takes longer. Raises what it raises; returns seconds."""
    outcome: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            outcome.append(error)

    began = time.monotonic()
    thread = threading.Thread(target=run, name=what, daemon=True)
    thread.start()
    thread.join(within_s)
    assert not thread.is_alive(), f"{what} hangs: not done after {within_s:g} s\n{stacks()}"
    if outcome:
        raise outcome[0]
    return time.monotonic() - began


@dataclass
class Ended:
    """How a child process ended."""

    status: int  # negative: by that signal
    seconds: float  # from what was to end it
    out: str
    err: str


class Child:
    """A Python process whose end is watched.

    It tells how far it has come by lines of its standard output. ``report_on_signal`` in it lets it say where it hangs.
    """

    def __init__(self, *arguments: str, **environment: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **environment},
        )
        self._out: list[str] = []
        self._changed = threading.Condition()  # guards _out and _eof
        self._eof = False
        self._err: list[str] = []
        self._readers = [threading.Thread(target=read, daemon=True) for read in (self._read_out, self._read_err)]
        for reader in self._readers:
            reader.start()

    def _read_out(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._changed:
                self._out.append(line.rstrip("\n"))
                self._changed.notify_all()
        with self._changed:
            self._eof = True
            self._changed.notify_all()

    def _read_err(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._err.append(line)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def says(self, line: str, within_s: float = 30.0) -> None:
        """Wait until it has written ``line``."""
        with self._changed:
            self._changed.wait_for(lambda: line in self._out or self._eof, within_s)
            said = line in self._out
        assert said, f"it never said {line!r}; {self._remains()}"

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def tell(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def ends(self, within_s: float) -> Ended:
        """Wait for its end; one that hangs is killed, and fails with the stacks of all of its threads."""
        began = time.monotonic()
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it hangs: not ended after {within_s:g} s; {self._remains()}") from None
        seconds = time.monotonic() - began
        for reader in self._readers:
            reader.join(_DUMPED_WITHIN_S)
        return Ended(self._process.returncode, seconds, "\n".join(self._out), "".join(self._err))

    def _remains(self) -> str:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGUSR1)
            deadline = time.monotonic() + _DUMPED_WITHIN_S
            while "most recent call first" not in "".join(self._err) and time.monotonic() < deadline:
                time.sleep(0.05)
            time.sleep(0.2)  # for the rest of the dump, which has no end
        self.kill()
        return f"status {self._process.returncode}\nout: {self._out}\nerr: {''.join(self._err)}"

    def kill(self) -> None:
        """End it, whatever it does."""
        self._process.kill()
        self._process.wait()
        for reader in self._readers:
            reader.join(_DUMPED_WITHIN_S)
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()


@contextmanager
def child(*arguments: str, **environment: str) -> Iterator[Child]:
    """A ``Child`` that is gone at the end."""
    process = Child(*arguments, **environment)
    try:
        yield process
    finally:
        process.kill()
