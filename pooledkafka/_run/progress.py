"""Shows on a terminal how a run goes."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TextIO

__all__ = ["Progress"]

_EVERY_S = 0.5


class Progress:
    """One line that is written over and over: records, records a second, lag. Nothing where there is no terminal.

    Args:
        shown: whether it was asked for.
        name: what is shown; the group.
        lag: how many records are still to be read, or None where that is not known yet.
        stream: default: standard error.
    """

    def __init__(self, shown: bool, name: str, lag: Callable[[], int | None], stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._shown = shown and self._stream is not None and self._stream.isatty()
        self._name = name
        self._lag = lag
        self._handled = 0
        self._last_handled = 0
        self._last_at = time.monotonic()

    def handled(self, count: int) -> None:
        """So many more records were handled."""
        self._handled += count
        self.tick()

    def tick(self) -> None:
        """Show it again if it is time to."""
        if not self._shown:
            return
        now = time.monotonic()
        elapsed_s = now - self._last_at
        if elapsed_s >= _EVERY_S:
            self._show((self._handled - self._last_handled) / elapsed_s)
            self._last_handled, self._last_at = self._handled, now

    def close(self) -> None:
        """Leave the line as it is, and what comes after it on one of its own."""
        if self._shown:
            self._show(None, "\n")

    def _show(self, rate: float | None, end: str = "") -> None:
        lag = self._lag()
        parts = [f"{self._handled:,} records"]
        if rate is not None:
            parts.append(f"{rate:,.0f}/s")
        if lag is not None:
            parts.append(f"lag {lag:,}")
        try:
            self._stream.write(f"\r\x1b[K{self._name}: {', '.join(parts)}{end}")
            self._stream.flush()
        except (OSError, ValueError):
            self._shown = False  # the terminal has gone, or was closed: no reason to end the run
