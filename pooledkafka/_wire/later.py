"""Looks after something a while later, however often that was asked for meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["Later"]


class Later:
    """Runs ``action`` on the I/O thread ``after_s`` after it was asked for, with one timer at a time.

    ``action`` returns whether there is something left to look after, and so whether to come again. What becomes idle
    between two looks is thus closed up to ``after_s`` late.
    """

    def __init__(self, net: Any, after_s: float, action: Callable[[], bool]) -> None:
        self._net = net
        self._after_s = after_s
        self._action = action
        self._due = False

    def ask(self) -> None:
        """See to it that the action runs."""
        if not self._due and not self._net._closed:
            self._due = True
            self._net.call_later(self._after_s, self._run)

    def _run(self) -> None:
        self._due = False
        if self._action():
            self.ask()
