"""Writes a pool's metrics to the files by which the processes of a server tell each other theirs."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Sequence
from multiprocessing import parent_process
from multiprocessing.util import Finalize
from typing import Any

from prometheus_client import Counter, Gauge, Histogram

from pooledkafka._logging import get_logger
from pooledkafka.contrib.prometheus._families import Family, Kind
from pooledkafka.contrib.prometheus._samples import Sample, samples
from pooledkafka.events import ConnectionCreated, PoolEvent
from pooledkafka.pool import ConnectionPool
from pooledkafka.stats import DURATION_BOUNDS_MS, Durations

__all__ = ["Publisher"]

_log = get_logger("pooledkafka.metrics")

# Held while values are written, and while the process is forked: the child would find a lock of prometheus_client's
# taken for ever, if a thread that it does not have was just writing. No lock of the pool's is taken under it.
_writing = threading.Lock()
os.register_at_fork(before=_writing.acquire, after_in_parent=_writing.release, after_in_child=_writing.release)

_metrics: dict[str, Any] = {}
"""prometheus_client's own, by the name of the family; made once, since all pools share them. Guarded by _writing."""


class _Written:
    """What was written of a pool, by whichever publisher; all guarded by _writing.

    What is counted is written by its increase, so a pool that is registered again must not be told from the beginning.
    """

    def __init__(self) -> None:
        self.process: int | None = None
        self.values: dict[tuple[str, Family, tuple[str, ...]], float | Durations] = {}

    def by_this_process(self) -> dict[tuple[str, Family, tuple[str, ...]], float | Durations]:
        """Empty in a forked process, whose files are its own."""
        if self.process != os.getpid():
            self.process = os.getpid()
            self.values = {}
        return self.values


_written: weakref.WeakKeyDictionary[ConnectionPool, _Written] = weakref.WeakKeyDictionary()
"""Guarded by _writing."""


class _Durations(Histogram):
    """A histogram that is told what others have counted."""

    def add(self, counts: Sequence[int], seconds: float) -> None:
        for bucket, count in zip(self._buckets, counts, strict=True):
            if count:
                bucket.inc(count)
        self._sum.inc(seconds)


class Publisher:
    """Writes the metrics of one pool each ``interval_s`` seconds, in every process that uses the pool.

    A custom collector is asked in one process only, whichever serves the scrape; what is written to prometheus_client's
    files is added up over all. It begins when the pool opens its first connection in a process, so that it costs
    nothing before, and a thread of its own for each process after. When the process ends in order, its gauges become
    zero, whether the server tells ``mark_process_dead`` or not; its counters stay.

    It does not keep the pool alive.
    """

    def __init__(self, pool: ConnectionPool, name: str, *, lag: bool, interval_s: float) -> None:
        self._pool = weakref.ref(pool)
        self._name = name
        self._lag = lag
        self._interval_s = interval_s
        # The process that has a thread, what ends that, and what ends it with a process of multiprocessing, which
        # runs nothing of atexit. Guarded by _writing.
        self._process: int | None = None
        self._over = threading.Event()
        self._with_process: Finalize | None = None
        self._ended = False  # set once, by any thread
        with _writing:
            self._written = _written.setdefault(pool, _Written())
        atexit.register(self._end_with_process)
        pool.measure_durations()
        pool.add_listener(self.hear)
        if pool.stats().connections_created:
            self.begin()

    @property
    def pool(self) -> ConnectionPool | None:
        """What it writes of; None when that is gone."""
        return self._pool()

    def hear(self, event: PoolEvent) -> None:
        """Begin in this process when the pool connects in it."""
        if isinstance(event, ConnectionCreated):
            self.begin()

    def begin(self) -> None:
        """Start the thread, once in each process."""
        with _writing:
            if self._ended or self._process == os.getpid():
                return
            over = threading.Event()
            try:
                threading.Thread(target=self._run, args=(over,), name="pooledkafka-prometheus", daemon=True).start()
            except RuntimeError:  # Python 3.12 starts none while the interpreter ends
                return
            self._process = os.getpid()
            self._over = over
            if parent_process() is not None:
                # With what comes last there: finalizers of the application may still send.
                self._with_process = Finalize(None, self._end_with_process, exitpriority=-(2**31))

    def end(self) -> None:
        """Write no more; the gauges become zero."""
        self._ended = True
        if (pool := self._pool()) is not None:
            pool.remove_listener(self.hear)
        atexit.unregister(self._end_with_process)
        self._end_here()
        if self._with_process is not None:
            self._with_process.cancel()

    def _run(self, over: threading.Event) -> None:
        while not over.wait(self._interval_s):
            if not self._publish(over):
                self.end()
                return

    def _publish(self, over: threading.Event) -> bool:
        """Write what is there now, unless it is over; False where the pool is gone."""
        pool = self._pool()
        if pool is None:
            return False
        try:
            found = [*samples(pool, lag=self._lag)]
            with _writing:
                if not over.is_set():  # else the zeros have been written
                    self._write(found)
        except Exception as error:  # a full disk, say: the next time may be better
            _log.warning("metrics.not_written", pool=self._name, error=repr(error))
        return True

    def _end_with_process(self) -> None:
        if self._process == os.getpid():
            self._publish(self._over)
            self._end_here()

    def _end_here(self) -> None:
        with _writing:
            self._over.set()
            self._write([])

    def _write(self, found: Sequence[Sample]) -> None:  # with _writing
        seen = set()
        for family, labels, value in found:
            seen.add((self._name, family, labels))
            self._write_one(family, labels, value)
        for name, family, labels in self._written.by_this_process().keys() - seen:
            # prometheus_client cannot take a value back from its files.
            if name == self._name and family.kind in (Kind.SUMMED, Kind.GREATEST):
                self._write_one(family, labels, 0)

    def _write_one(self, family: Family, labels: tuple[str, ...], value: float | Durations) -> None:
        written = self._written.by_this_process()
        before = written.get((self._name, family, labels))
        if before == value:
            return
        metric = _metric_of(family).labels(self._name, *labels)
        if isinstance(value, Durations):
            told = before if isinstance(before, Durations) else Durations(0, 0.0, (), (0,) * len(value.counts))
            counts = [now - then for now, then in zip(value.counts, told.counts, strict=True)]
            metric.add(counts, (value.total_ms - told.total_ms) / 1000)
        elif family.kind is Kind.COUNTER:
            # One that was counted since the pool connected begins anew when it connects again.
            told_number = before if isinstance(before, (int, float)) and before <= value else 0
            metric.inc(value - told_number)
        else:
            metric.set(value)
        written[self._name, family, labels] = value


def _metric_of(family: Family) -> Any:
    metric = _metrics.get(family.name)
    if metric is None:
        # In no registry: MultiProcessCollector reads the files, and any other would show this process alone.
        options: dict[str, Any] = {"labelnames": family.all_labels, "registry": None}
        match family.kind:
            case Kind.COUNTER:
                metric = Counter(family.full_name, family.help, **options)
            case Kind.HISTOGRAM:
                bounds = [bound / 1000 for bound in DURATION_BOUNDS_MS]
                metric = _Durations(family.full_name, family.help, buckets=bounds, **options)
            case Kind.SUMMED:
                metric = Gauge(family.full_name, family.help, multiprocess_mode="livesum", **options)
            case Kind.GREATEST:
                metric = Gauge(family.full_name, family.help, multiprocess_mode="livemax", **options)
        _metrics[family.name] = metric
    return metric
