"""An embedded cluster in a process of its own, so that its threads and memory are not the scenario's."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from pooledkafka.testing import EmbeddedKafka

__all__ = ["RemoteCluster", "embedded_process"]

_START_S = 60.0
_END_S = 20.0


class RemoteCluster:
    """Calls methods of the cluster; for one thread."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return lambda *args, **kwargs: self._call(name, args, kwargs)

    def _call(self, name: str, args: Any, kwargs: Any) -> Any:
        self._pipe.send((name, args, kwargs))
        if not self._pipe.poll(_START_S):
            raise TimeoutError(f"the cluster's process did not answer {name} within {_START_S:.0f} s")
        worked, answer = self._pipe.recv()
        if not worked:
            raise answer
        return answer


def _serve(pipe: Connection, options: Mapping[str, Any]) -> None:
    with EmbeddedKafka(**options) as cluster:
        while True:
            try:
                name, args, kwargs = pipe.recv()
            except EOFError:  # the scenario has ended, or was killed
                return
            try:
                answer = True, getattr(cluster, name)(*args, **kwargs)
            except Exception as error:
                answer = False, error
            pipe.send(answer)


@contextmanager
def embedded_process(**options: Any) -> Iterator[RemoteCluster]:
    """``EmbeddedKafka(**options)`` in another process, until the end of the block or of this process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, options), daemon=True)
    process.start()
    theirs.close()
    try:
        yield RemoteCluster(ours)
    finally:
        ours.close()
        process.join(_END_S)
        if process.is_alive():
            process.kill()
            process.join()
        process.close()
