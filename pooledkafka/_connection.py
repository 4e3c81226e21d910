"""What a pool has while it is connected, and how that ends: in order, when it is dropped, and with the interpreter."""

from __future__ import annotations

import atexit
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping

from pooledkafka._forking import abandon, inherit, notice_fork
from pooledkafka._logging import get_logger
from pooledkafka._wire import Engine, Senders, WiredProducer

__all__ = ["Connection", "counted", "exiting"]

_log = get_logger("pooledkafka.pool")

_GRACE_MS = 1_000.0
"""What leaving groups gets on top, where the time is up: a request that is on its way is worth that."""

_DROPPED_S = 30.0
"""How long a pool that was dropped may go on to deliver what was sent before."""

_EXITED = "the interpreter ended; call flush() or disconnect() before"

_open: set[Connection] = set()  # added to and taken from by any thread, one atomic step each
_exiting = threading.Event()


def exiting() -> bool:
    """Whether the interpreter ends, so that everything stays as it is."""
    return _exiting.is_set()


class Connection:
    """An engine and its producers. It outlives a pool that is dropped, until it has ended in order.

    From any thread, but for what is said to run on the I/O thread.
    """

    def __init__(self, engine: Engine, exit_timeout_ms: float) -> None:
        self.engine = engine
        self.senders = Senders(engine)
        self._exit_timeout_s = exit_timeout_ms / 1000
        _open.add(self)
        inherit(self)

    def end(self, deadline: float) -> Counter[str]:
        """Let what is left leave its groups, deliver what is buffered, and close everything.

        Returns how many records were not delivered, by topic.
        """
        try:
            self.engine.leave_groups(max(_GRACE_MS, (deadline - time.monotonic()) * 1000))
            return self.senders.close(max(0.0, deadline - time.monotonic()) * 1000)
        except BaseException:  # a second signal, say
            self._tell(self.senders.give_up(), "the wait for them was cut short")
            raise
        finally:
            self.engine.stop()
            _open.discard(self)

    @property
    def waits_for_this_thread(self) -> bool:
        """Whether this is a thread that the connection's end would wait for."""
        return self.engine.on_io_thread or self.senders.on_sender_thread

    def _in_child(self) -> None:
        _open.discard(self)
        abandon(self)

    # -- dropped: for finalizers, which run on any thread, the I/O thread too, in the middle of anything ---------------

    def drop(self) -> None:
        """End it in the background; its pool is gone."""
        self._reap(self._end_dropped)

    def drop_sender(self, sender: WiredProducer) -> None:
        """Release a producer in the background; its handle is gone."""
        self._reap(lambda: self.senders.release(sender, _DROPPED_S * 1000))

    def _reap(self, action: Callable[[], object]) -> None:
        # A finalizer can neither wait nor start a thread, which takes locks; the I/O thread can do the latter.
        self.engine.soon(lambda: _start_thread(action))

    def _end_dropped(self) -> None:
        undelivered = self.end(time.monotonic() + _DROPPED_S)
        if not exiting():  # else that was told
            self._tell(undelivered, "their pool was dropped; call disconnect() before")

    def _tell(self, undelivered: Mapping[str, int], cause: str) -> None:
        if undelivered:
            _log.warning(
                "records.not_delivered",
                pool=self.engine.name,
                undelivered=sum(undelivered.values()),
                topics=dict(sorted(undelivered.items())),
                cause=cause,
            )

    # -- with the interpreter ------------------------------------------------------------------------------------------

    def _begin_exit(self) -> Callable[[float], None]:
        """Begin to end without waiting; what is returned waits, and tells what was not delivered.

        Connections are left to the operating system, and threads to what they do: daemon threads may use them still,
        and are no concern of theirs that the interpreter ends.
        """
        left = self.engine.begin_exit(self._exit_timeout_s * 1000)
        flushed = self.senders.begin_flush()

        def wait(started: float) -> None:
            deadline = started + self._exit_timeout_s
            try:
                left.wait(max(0.0, deadline - time.monotonic()))
                undelivered = flushed(max(0.0, deadline - time.monotonic()) * 1000)
            except BaseException:  # another signal
                self._tell(self.senders.give_up(), _EXITED)
                raise
            self._tell(undelivered, _EXITED)

        return wait


def _start_thread(action: Callable[[], object]) -> None:  # on the I/O thread
    try:
        threading.Thread(target=action, name="pooledkafka-reaper", daemon=True).start()
    except RuntimeError:
        pass  # the interpreter ends, and sees to what is open by itself


def counted(undelivered: Mapping[str, int]) -> str:
    """How many records of which topics, for messages."""
    topics = ", ".join(f"{count} of {topic}" for topic, count in sorted(undelivered.items()))
    return f"{sum(undelivered.values())} records ({topics})"


def _at_exit() -> None:
    """Deliver what is buffered and leave all groups, each pool within its ``exit_timeout_ms`` and all at the same time.

    With ``atexit``: threads that are no daemons have ended by then, so nobody loses a pool that he uses, while daemon
    threads, of which the I/O thread and the Senders are some, still run. (What ``threading`` runs at exit comes before
    it waits for the others; what comes after ``atexit`` finds daemon threads stopped.) It was registered at import, so
    what the application registers runs before it. No thread is started: Python 3.12 refuses that from here on.
    """
    notice_fork()
    _exiting.set()
    started = time.monotonic()
    waits = [connection._begin_exit() for connection in list(_open)]
    for wait in waits:
        wait(started)


atexit.register(_at_exit)
