"""What each client of a scenario wrote down as it happened, one event a line, in a file of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["Line", "Notes", "read_notes"]

Line = list[str]
"""What happened, when, and what belongs to it."""


class Notes:
    """Appends events to a file. Any thread may; the lines are in the order in which they were told."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w")  # guarded by _lock
        self._lock = threading.Lock()

    def write(self, what: str, *fields: object) -> None:
        """Add one line with the time of now."""
        line = "\t".join([what, f"{time.monotonic():.4f}", *(str(field).replace("\n", " ") for field in fields)])
        with self._lock:
            if not self._file.closed:  # a client that was given up may still have something to say
                self._file.write(line + "\n")

    def close(self) -> None:
        with self._lock:
            self._file.close()


def read_notes(path: Path) -> Iterator[Line]:
    """All complete lines."""
    with path.open() as file:
        for line in file:
            if line.endswith("\n"):
                yield line[:-1].split("\t")
