"""Finds the coordinators of many groups with few requests."""

from __future__ import annotations

import random
from typing import Any

from kafka.errors import CoordinatorNotAvailableError, NodeNotReadyError
from kafka.future import Future
from kafka.protocol.metadata import CoordinatorType, FindCoordinatorRequest, FindCoordinatorResponse

from pooledkafka._wire.futures import attempt
from pooledkafka._wire.manager import SharedManager

__all__ = ["Coordinators"]

_PAUSE_S = 0.1
"""Between one request and the next, about: kafka-python's ``retry_backoff_ms`` of a single client."""
_BATCHED_SINCE = 4
"""The version of FindCoordinator that names several groups (KIP-699)."""


class Coordinators:
    """Asks for all groups that want to know at one time by one request; on the I/O thread only.

    When a broker fails, each of its groups looks for another coordinator ten times a second until there is one. With
    hundreds of groups in a pool, that is a storm on the brokers that are left. Here they wait for one request a moment,
    and whoever comes alone waits for nothing.
    """

    def __init__(self, net: Any, manager: SharedManager) -> None:
        self._net = net
        self._manager = manager
        self._wanted: dict[str, tuple[Future, float]] = {}  # by group: who waits to know, and its timeout in ms
        self._busy = False  # a request is on its way, or the pause after it is not over

    def find(self, group: str, timeout_ms: float) -> Future:
        """A FindCoordinator response for one group; fails as the request does."""
        if group not in self._wanted:
            self._wanted[group] = Future(), timeout_ms
        future = self._wanted[group][0]
        if not self._busy:
            self._busy = True
            self._net.call_soon(self._ask)  # those who come in the same round come with it
        return future

    def _ask(self) -> None:
        wanted, self._wanted = self._wanted, {}
        if not wanted:
            self._busy = False
            return
        futures = {group: future for group, (future, _) in wanted.items()}
        node_id = self._manager.least_loaded_node()
        versions = self._manager.broker_version_data
        batched = versions is not None and versions.api_version(FindCoordinatorRequest) >= _BATCHED_SINCE
        timeout_ms = max(timeout_ms for _, timeout_ms in wanted.values())
        for groups in [list(futures)] if batched else [[group] for group in futures]:
            self._send(node_id, {group: futures[group] for group in groups}, timeout_ms)
        if not self._net.ending:
            self._net.call_later(_PAUSE_S * random.uniform(0.8, 1.2), self._ask)

    def _send(self, node_id: int | None, futures: dict[str, Future], timeout_ms: float) -> None:
        groups = list(futures)
        request = FindCoordinatorRequest(key=groups[0], key_type=CoordinatorType.GROUP, coordinator_keys=groups)

        def answered(response: Any) -> None:
            found = {each.key: each for each in response.coordinators or ()}
            for group, future in futures.items():
                if not response.coordinators:
                    future.success(response)  # of a broker that tells of one at a time
                elif group in found:
                    future.success(FindCoordinatorResponse(version=response.API_VERSION, coordinators=[found[group]]))
                else:
                    future.failure(CoordinatorNotAvailableError(group))

        def failed(error: BaseException) -> None:
            for future in futures.values():
                future.failure(error)

        def ask() -> Future:
            if node_id is None:
                raise NodeNotReadyError("no broker can be reached now")
            return self._manager.ask_around(request, node_id, timeout_ms)

        sent = attempt(ask)
        sent.add_callback(answered)
        sent.add_errback(failed)
