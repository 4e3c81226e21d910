"""Ends a run by SIGTERM and SIGINT."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from pooledkafka.errors import ConfigurationError

__all__ = ["stopped_by_signals"]

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call ``stop`` at the first SIGTERM or SIGINT; the second ends whatever runs, a handler that hangs included.

    It does so as Python does: by KeyboardInterrupt, or SystemExit with 128 and the signal's number. What the signals
    did before is put back at the end.

    Raises:
        ConfigurationError: in another thread than the main one, where Python handles no signals.
    """
    if threading.current_thread() is not threading.main_thread():
        raise ConfigurationError(
            "handle_signals=True works in the main thread only, where Python handles signals; handle them there, and "
            "call stop() of the consumer"
        )
    asked = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
        asked = True
        stop()

    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, what in before.items():
            signal.signal(number, signal.SIG_DFL if what is None else what)
