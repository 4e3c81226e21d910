"""The clients of storms.py: one library's, in this process, which say when each of them was served.

``python -m reliability.storm_clients '<options as JSON>'`` prints one line of JSON when all have started, and one for
each question on its standard input: ``[from, until]``, two times of the monotonic clock. It ends with that.
"""

from __future__ import annotations

import itertools
import json
import sys
import threading
import time
from typing import Any, cast

from benchmarks.libraries import Partitions, Sender, made
from benchmarks.options import PRODUCER
from benchmarks.reading import ThreadedLibrary

__all__ = ["main"]


class Served:
    """When one client was last served, and the times at which it was; written by one thread, read by another."""

    def __init__(self) -> None:
        self.at: list[float] = []
        self.errors = 0

    def now(self) -> None:
        self.at.append(time.monotonic())

    def first_after(self, moment: float) -> float | None:
        """Seconds from then until it was served."""
        return next((at - moment for at in list(self.at) if at >= moment), None)

    def longest_without(self, since: float, until: float) -> float:
        moments = [since, *(at for at in list(self.at) if since < at < until), until]
        return max(later - earlier for earlier, later in itertools.pairwise(moments))


class PolledConsumer(Served):
    """A consumer on a thread of its own, polled until the process ends, whatever it raises."""

    def __init__(self, library: ThreadedLibrary, topic: str, group: str) -> None:
        super().__init__()
        self.assigned_at: float | None = None
        threading.Thread(target=self._run, args=(library, topic, group), daemon=True).start()

    def gained(self, partitions: Partitions) -> None:
        if partitions:
            self.assigned_at = self.assigned_at or time.monotonic()

    def lost(self, partitions: Partitions) -> None: ...

    def _run(self, library: ThreadedLibrary, topic: str, group: str) -> None:
        reader = library.reader(topic, group, self)
        while True:
            try:
                if reader.poll():
                    self.now()
            except Exception:
                self.errors += 1


class SteadyProducer(Served):
    """Has a record acknowledged every few seconds."""

    def __init__(self, send: Sender, partition: int) -> None:
        super().__init__()
        self._send = send
        self._partition = partition

    def send(self) -> None:
        def done(error: Any) -> None:
            if error is None:
                self.now()
            else:
                self.errors += 1

        try:
            self._send(b"x" * 100, self._partition, done)
        except Exception:
            self.errors += 1


def keep_sending(producers: list[SteadyProducer], interval_s: float) -> None:
    start = time.monotonic()
    number = 0
    while True:
        time.sleep(max(0.0, start + number * interval_s / len(producers) - time.monotonic()))
        producers[number % len(producers)].send()
        number += 1


def main() -> None:
    options = json.loads(sys.argv[1])
    library = cast("ThreadedLibrary", made(options["library"], options["bootstrap"]))
    start = time.monotonic()
    consumers = [
        PolledConsumer(
            library, options["topic"], f"{options['topic']}-{options['number']}-{number % options['groups']}"
        )
        for number in range(options["consumers"])
    ]
    deadline = start + options["within_s"]
    while any(each.assigned_at is None for each in consumers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assigned = [each.assigned_at - start for each in consumers if each.assigned_at is not None]
    producers = [
        SteadyProducer(library.sender(options["topic"], PRODUCER), number % options["partitions"])
        for number in range(options["producers"])
    ]
    threading.Thread(target=keep_sending, args=(producers, options["interval_s"]), daemon=True).start()
    clients: list[Served] = [*consumers, *producers]
    while not all(each.at for each in producers) and time.monotonic() < deadline:
        time.sleep(0.05)
    print(json.dumps({"assigned": len(assigned), "assigned_s": max(assigned, default=None)}), flush=True)
    for line in sys.stdin:
        since, until = json.loads(line)
        figures = {
            "served_after_s": [each.first_after(until) for each in clients],
            "longest_without_s": max(each.longest_without(since, until) for each in clients),
            "errors": sum(each.errors for each in clients),
        }
        print(json.dumps(figures), flush=True)


if __name__ == "__main__":
    main()
