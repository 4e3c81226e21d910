"""Finds the coordinators of many groups with few requests."""

from __future__ import annotations

import random
import time
from typing import Any

from kafka.errors import CoordinatorNotAvailableError, NodeNotReadyError
from kafka.future import Future
from kafka.protocol.metadata import CoordinatorType, FindCoordinatorRequest, FindCoordinatorResponse

from pooledkafka._wire.futures import attempt
from pooledkafka._wire.manager import SharedManager

__all__ = ["Coordinators"]

_PAUSE_S = 0.1
"""Between one request and the next, about: kafka-python's ``retry_backoff_ms`` of a single client."""
_NEW_AFTER_S = 1.0
"""Who asks for a group that nobody has asked for in so long does so for the first time."""
_BATCHED_SINCE = 4
"""The version of FindCoordinator that names several groups (KIP-699)."""


class Coordinators:
    """Asks for all groups that want to know at one time by one request; on the I/O thread only.

    When a broker fails, each of its groups looks for another coordinator ten times a second until there is one. With
    hundreds of groups in a pool, that is a storm on the brokers that are left. Here they wait for one request a moment.
    Whoever comes alone waits for nothing, and who asks for the first time for no more than what is on its way.
    """

    def __init__(self, net: Any, manager: SharedManager) -> None:
        self._net = net
        self._manager = manager
        self._wanted: dict[str, tuple[Future, float]] = {}  # by group: who waits to know, and its timeout in ms
        self._busy = False  # a request is to be sent in this round of the event loop, or the pause after it is not over
        self._asked: dict[str, float] = {}  # when groups were asked for last
        self._on_their_way = 0  # requests

    def find(self, group: str, timeout_ms: float) -> Future:
        """A FindCoordinator response for one group; fails as the request does."""
        if group not in self._wanted:
            self._wanted[group] = Future(), timeout_ms
        future = self._wanted[group][0]
        if not self._busy:
            self._busy = True
            self._net.call_soon(self._ask)  # those who come in the same round come with it
        elif not self._on_their_way and group not in self._asked:
            self._net.call_soon(self._ask_for_new_ones)
        return future

    def _ask(self) -> None:
        forgotten = time.monotonic() - _NEW_AFTER_S
        self._asked = {group: at for group, at in self._asked.items() if at > forgotten}
        if not self._wanted:
            self._busy = False
            return
        self._ask_for(list(self._wanted))
        if not self._net.ending:
            self._net.call_later(_PAUSE_S * random.uniform(0.8, 1.2), self._ask)

    def _ask_for_new_ones(self) -> None:
        if new := [group for group in self._wanted if group not in self._asked]:
            self._ask_for(new)

    def _ask_for(self, groups: list[str]) -> None:
        wanted = {group: self._wanted.pop(group) for group in groups}
        self._asked.update(dict.fromkeys(groups, time.monotonic()))
        node_id = self._manager.least_loaded_node()
        versions = self._manager.broker_version_data
        batched = versions is not None and versions.api_version(FindCoordinatorRequest) >= _BATCHED_SINCE
        timeout_ms = max(timeout_ms for _, timeout_ms in wanted.values())
        for together in [groups] if batched else [[group] for group in groups]:
            self._send(node_id, {group: wanted[group][0] for group in together}, timeout_ms)

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

        def back(_: Any) -> None:
            self._on_their_way -= 1
            if not self._on_their_way and self._wanted:
                self._net.call_soon(self._ask_for_new_ones)

        self._on_their_way += 1
        sent = attempt(ask)
        sent.add_callback(answered)
        sent.add_errback(failed)
        sent.add_both(back)
