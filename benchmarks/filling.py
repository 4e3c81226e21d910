"""Fills a topic with records, evenly over its partitions, before anything is measured."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

from benchmarks.cases import Case, Result
from benchmarks.libraries import Library
from benchmarks.options import streaming, window
from benchmarks.values import Supply

__all__ = ["FillCase"]

WITHIN_S = 300.0


@dataclass(frozen=True, kw_only=True)
class FillCase(Case):
    benchmark = "fill"
    named_by = ("topic",)

    topic: str
    partitions: int
    records: int
    size: int
    codec: str

    def about_s(self) -> float:
        return 10

    def measure(self, library: Library) -> Result:
        supply = Supply(self.size, self.records, WITHIN_S)
        send = library.sender(self.topic, streaming("same", self.codec))
        room = threading.Semaphore(min(window(self.size), 20_000))
        errors: list[str] = []
        acknowledged = 0
        counting = threading.Lock()
        complete = threading.Event()

        def done(error: Any) -> None:
            nonlocal acknowledged
            room.release()
            with counting:
                acknowledged += 1
                if error is not None:
                    errors.append(repr(error))
                if acknowledged == self.records:
                    complete.set()

        number = 0
        for values in supply:
            for value in values:
                if not room.acquire(timeout=WITHIN_S):
                    raise RuntimeError(f"of {number} records only {acknowledged} were acknowledged")
                send(value, number % self.partitions, done)
                number += 1
        if not complete.wait(WITHIN_S) or errors:
            raise RuntimeError(f"{acknowledged} of {self.records} records were acknowledged; failed: {errors[:1]}")
        return {"records": number}
