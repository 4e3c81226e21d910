"""Calls that block, on a thread of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from tests.pooled.waiting import TIMEOUT_S

__all__ = ["Call"]


class Call:
    """Runs on a thread of its own; what it raised is there to look at."""

    def __init__(self, call: Callable[..., Any], *args: Any) -> None:
        self.error: BaseException | None = None
        self._call, self._args = call, args
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._call(*self._args)
        except BaseException as error:
            self.error = error

    def ended(self) -> BaseException | None:
        """Wait for its end; what it raised."""
        self._thread.join(TIMEOUT_S)
        assert not self._thread.is_alive(), "it hangs"
        return self.error
