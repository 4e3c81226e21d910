"""Looks after something a while later, however often that was asked for meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["Later", "call_later"]


def call_later(net: Any, delay_s: float, action: Callable[[], object]) -> None:
    """Run ``action`` after a time, on the event loop; not where that has been closed.

    Whoever closes it does so from another thread, at any moment, while what runs on the loop still runs.
    """
    try:
        net.call_later(delay_s, action)
    except RuntimeError:
        pass


class Later:
    """Runs ``action`` on the I/O thread ``after_s`` after it was asked for, with one timer at a time.

    ``action`` returns in how many seconds to come again; None: when asked to.
    """

    def __init__(self, net: Any, after_s: float, action: Callable[[], float | None]) -> None:
        self._net = net
        self._after_s = after_s
        self._action = action
        self._due = False

    def ask(self) -> None:
        """See to it that the action runs."""
        if not self._due:
            self._in(self._after_s)

    def _in(self, delay_s: float) -> None:
        self._due = True
        call_later(self._net, delay_s, self._run)

    def _run(self) -> None:
        self._due = False
        again_s = self._action()
        if again_s is not None:
            self._in(again_s)
