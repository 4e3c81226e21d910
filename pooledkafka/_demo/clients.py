"""The demonstration's consumers and producers, each doing its work."""

from __future__ import annotations

import threading
import time
from collections import Counter

from pooledkafka.consumer import Consumer
from pooledkafka.producer import Producer

__all__ = ["PARTITIONS", "TIMEOUT_S", "Load", "Reader"]

PARTITIONS = 6
TIMEOUT_S = 60.0


class Reader:
    """One consumer in a group of its own, on a thread of its own, that counts what it receives."""

    def __init__(self, consumer: Consumer, records: int) -> None:
        self.received: Counter[bytes] = Counter()  # by key; written by the thread alone, as are the next three
        self.latencies_ms: list[float] = []
        self.assigned = False
        self.error: BaseException | None = None
        self._consumer = consumer
        self._records = records
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def done(self) -> bool:
        return len(self.latencies_ms) >= self._records or self.error is not None

    def _run(self) -> None:
        try:
            with self._consumer:
                while not self._stop.is_set():
                    batches = self._consumer.poll(timeout_ms=200)
                    now = time.monotonic_ns()
                    self.assigned = self.assigned or bool(self._consumer.assignment())
                    for records in batches.values():
                        self.received.update(record.key for record in records)
                        self.latencies_ms.extend((now - int(record.value)) / 1e6 for record in records)
        except BaseException as error:
            self.error = error

    def tell_to_stop(self) -> None:
        self._stop.set()

    def join(self) -> None:
        self._thread.join(TIMEOUT_S)


class Load(threading.Thread):
    """Sends the records at a steady rate, by all producers in turn."""

    def __init__(self, producers: list[Producer], topic: str, records: int, rate: float) -> None:
        super().__init__(daemon=True)
        self.sent = 0
        self.acknowledged_ms: list[float] = []  # how long each took, in the order of their acknowledgement
        self.error: BaseException | None = None
        self._producers = producers
        self._topic = topic
        self._records = records
        self._rate = rate

    def run(self) -> None:
        start = time.monotonic()
        futures = []
        try:
            for number in range(self._records):
                time.sleep(max(0.0, start + number / self._rate - time.monotonic()))  # the pace of the load
                at = time.monotonic_ns()
                producer = self._producers[number % len(self._producers)]
                future = producer.send(self._topic, key=b"%d" % number, value=b"%d" % at, partition=number % PARTITIONS)
                future.add_callback(lambda _, at=at: self.acknowledged_ms.append((time.monotonic_ns() - at) / 1e6))
                futures.append(future)
                self.sent += 1
            for future in futures:
                future.get(timeout=TIMEOUT_S)
        except BaseException as error:
            self.error = error
