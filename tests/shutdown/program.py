"""A program that is ended while its main thread is somewhere in the library.

    python -m tests.shutdown.program WHERE HANDLER HOW BOOTSTRAP GROUP [TOPIC]

WHERE the main thread is, HANDLER of the signals (default, stop, exit), and HOW it closes: ``with``, or ``without``.
"""

from __future__ import annotations

import faulthandler
import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from pooledkafka import ConnectionPool, Consumer, Producer
from tests.watchdog import report_on_signal

FOREVER_MS = 3_600_000
EXIT_MS = 1_500
RECORDS = 3
STORM = 500
_NEVER = threading.Event()


def say(line: str) -> None:
    print(line, flush=True)


class Program:
    def __init__(self, where: str, handler: str, how: str, bootstrap: str, group: str, topic: str = "orders") -> None:
        self.where, self.closes, self.topic = where, how == "with", topic
        self.pool = ConnectionPool(bootstrap_servers=bootstrap, exit_timeout_ms=EXIT_MS)
        self.consumer = Consumer(
            topic,
            group_id=group,
            connection_pool=self.pool,
            auto_offset_reset="earliest",
            enable_auto_commit=not where.startswith("run"),
        )
        self.producer = Producer(connection_pool=self.pool)
        if handler == "stop":
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, self._stop)
        elif handler == "exit":
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda *_: sys.exit(7))
        self.stopped_by_flag = handler == "stop"

        self.stops = 0

    def _stop(self, *_: Any) -> None:
        self.stops += 1
        self.consumer.stop()

    def run(self) -> None:
        with ExitStack() as stack:
            if self.closes and self.where not in ("close", "disconnect", "connect"):
                stack.enter_context(self.pool)
                stack.enter_context(self.consumer)
            with self.telling():
                getattr(self, self.where)()
        say("done")

    @contextmanager
    def telling(self) -> Iterator[None]:
        try:
            yield
        except BaseException as error:
            say(f"interrupted by {type(error).__name__}")
            raise

    def _read(self) -> None:
        read = 0
        while read < RECORDS:
            read += sum(map(len, self.consumer.poll(timeout_ms=FOREVER_MS).values()))

    def poll(self) -> None:
        self._read()
        say("ready")
        self.consumer.poll(timeout_ms=FOREVER_MS)
        assert self.stopped_by_flag

    def busy_poll(self) -> None:
        self._read()
        say("ready")
        while True:
            self.consumer.poll()

    def storm(self) -> None:
        self._read()
        say("ready")
        while self.stops < STORM:
            self.consumer.poll(timeout_ms=1)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # of which Python restores the default when it ends

    def iterate(self) -> None:
        for record in self.consumer:
            if record.offset == RECORDS - 1:
                say("ready")

    def run_idle(self) -> None:
        self.consumer.run(lambda record: say("ready") if record.offset == RECORDS - 1 else None)

    def run_handler(self) -> None:
        def handler(record: Any) -> None:
            if record.offset == 1:
                say("ready")
                _NEVER.wait(1 if self.stopped_by_flag else None)

        self.consumer.run(handler)

    def join(self) -> None:
        say("ready")
        self.consumer.poll(timeout_ms=FOREVER_MS)
        assert self.stopped_by_flag

    sync = join

    def commit(self) -> None:
        self._read()
        say("ready")
        self.consumer.commit()

    def flush(self) -> None:
        self.producer.send(self.topic, b"unsent")
        say("ready")
        self.producer.flush()

    def get(self) -> None:
        future = self.producer.send(self.topic, b"unsent")
        say("ready")
        future.get()

    def connect(self) -> None:
        say("ready")
        self.pool.connect(timeout_ms=FOREVER_MS)

    def close(self) -> None:
        self._read()
        say("ready")
        self.consumer.close(timeout_ms=FOREVER_MS)

    def disconnect(self) -> None:
        self.producer.send(self.topic, b"unsent")
        say("ready")
        self.pool.disconnect(timeout_ms=FOREVER_MS)


class Leaving(Program):
    """Where the program ends by itself, and nobody closes anything."""

    def delivered(self) -> None:
        self._read()
        self._lingering().send(self.topic, b"late")

    def _lingering(self) -> Producer:
        """Has its thread already: Python 3.12 starts none when the main thread has ended."""
        lingers = Producer(connection_pool=self.pool, linger_ms=FOREVER_MS, delivery_timeout_ms=2 * FOREVER_MS)
        lingers.partitions_for(self.topic)
        return lingers

    def undelivered(self) -> None:
        for _ in range(3):
            self.producer.send(self.topic, b"unsent")
        self.producer.send("bills", b"unsent")
        say("ready")

    def undelivered_later(self) -> None:
        self.producer.partitions_for(self.topic)
        say("ready")
        sys.stdin.readline()
        for _ in range(RECORDS):
            self.producer.send(self.topic, b"unsent")

    def exit_in_handler(self) -> None:
        self.consumer.run(lambda record: sys.exit(3))

    def exit_in_thread(self) -> None:
        lingers = self._lingering()

        def work() -> None:
            self._read()
            lingers.send(self.topic, b"late")
            sys.exit(5)

        threading.Thread(target=work).start()  # the interpreter waits for it

    def daemons(self) -> None:
        self._read()
        others = [Consumer(self.topic, group_id=f"g{n}", connection_pool=self.pool) for n in range(3)]
        started = threading.Barrier(len(others) + 2)

        def poll(consumer: Consumer) -> None:
            while consumer.group_metadata().generation_id < 1:
                consumer.poll(timeout_ms=10)
            started.wait()
            while True:
                consumer.poll(timeout_ms=10)

        def send() -> None:
            self.producer.partitions_for("bills")
            started.wait()
            while True:
                self.producer.send("bills", b"more").get()

        for consumer in others:
            threading.Thread(target=poll, args=(consumer,), daemon=True).start()
        threading.Thread(target=send, daemon=True).start()
        started.wait()

    def closes_at_exit(self) -> None:
        import atexit

        self._read()
        atexit.register(self.pool.disconnect)
        atexit.register(self.consumer.close)

    def stuck_io_thread(self) -> None:
        self._read()
        self.pool.client._net.call_soon_threadsafe(_NEVER.wait)


if __name__ == "__main__":
    report_on_signal()
    faulthandler.enable()
    logging.raiseExceptions = True
    program = Leaving(*sys.argv[1:])
    program.run()
    if sys.argv[3] == "dropped":
        del program
