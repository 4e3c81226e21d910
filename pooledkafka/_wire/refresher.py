"""The thread that refreshes a pool's metadata."""

from __future__ import annotations

import random
import threading
import weakref
from typing import Any

from kafka.errors import KafkaError

from pooledkafka._logging import get_logger

__all__ = ["MetadataRefresher"]

_log = get_logger("pooledkafka.metadata")

_SHORTEST_AGE = 0.8
"""Of metadata_max_age_ms: pools that were started together do not all ask at the same moment."""
_RETRY_S = 0.1
_RETRY_MAX_S = 10.0
_ANSWER_WITHIN_S = 60.0


class MetadataRefresher:
    """Forces a refresh every ``metadata_max_age_ms``, even if nothing seems to have changed, with a thread of its own.

    What clients ask for in between, because a leader moved or a topic is new, kafka-python's loop on the I/O thread
    fetches at once; both go through ``SharedCluster.request_update``, which makes one request of many wishes.
    """

    def __init__(self, cluster: Any, metadata_max_age_ms: float, pool: str = "") -> None:
        self._pool = pool  # its client id, for the log
        self._cluster = weakref.ref(cluster)  # the thread does not keep an abandoned pool alive
        self._max_age_s = metadata_max_age_ms / 1000
        self._stopped = threading.Event()
        self._waits_for = threading.Event()  # replaced by the thread, set by stop() to end its wait
        self._thread = threading.Thread(target=self._run, name="pooledkafka-metadata", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread and wait for it; does nothing before ``start``."""
        self._stopped.set()
        self._waits_for.set()
        if self._thread.ident is not None and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        failures = 0
        while not self._stopped.wait(self._pause_s(failures)):
            cluster = self._cluster()
            if cluster is None:
                return
            failures = 0 if self._refresh(cluster) else failures + 1
            del cluster

    def _pause_s(self, failures: int) -> float:
        if not failures:
            return self._max_age_s * random.uniform(_SHORTEST_AGE, 1.0)
        return min(_RETRY_S * 2.0 ** min(failures - 1, 10), _RETRY_MAX_S) * random.uniform(0.8, 1.2)

    def _refresh(self, cluster: Any) -> bool:
        over = threading.Event()
        try:
            future = cluster.request_update()
        except (KafkaError, RuntimeError) as error:  # the event loop has ended: stop() comes next
            _log.debug("metadata.not_asked", pool=self._pool, error=repr(error))
            return False
        future.add_both(lambda _: over.set())
        self._waits_for = over
        if self._stopped.is_set():
            return False  # stop() came before it could see what to end
        if not over.wait(_ANSWER_WITHIN_S) or not future.is_done:
            return False
        if future.exception is not None:
            _log.warning("metadata.refresh_failed", pool=self._pool, error=repr(future.exception))
        return bool(future.succeeded())
