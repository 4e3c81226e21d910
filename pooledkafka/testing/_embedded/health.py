"""Waits until nothing is wrong with an embedded cluster."""

from __future__ import annotations

import asyncio

from .._errors import UnhealthyClusterError
from .loop_thread import LoopThread
from .state import State

__all__ = ["wait_until_healthy"]


def wait_until_healthy(thread: LoopThread, state: State, timeout_s: float) -> None:
    """Return when every broker serves and every partition is in sync on all replicas. Raises UnhealthyClusterError."""
    if problem := thread.run(_wait(state, timeout_s)):
        raise UnhealthyClusterError(
            f"the cluster is not healthy after {timeout_s:g} s: {problem}; resume, start or heal what was made to fail"
        )


async def _wait(state: State, timeout_s: float) -> str | None:
    deadline = state.now() + timeout_s
    changed = asyncio.Event()
    while (problem := _problem(state)) is not None and state.now() < deadline:
        partitions = [partition for topic in state.topics.values() for partition in topic.partitions]
        for partition in partitions:
            partition.watch(changed)
        try:
            # A broker that comes back tells the partitions, but where there are none nobody is told.
            await asyncio.wait_for(changed.wait(), min(0.05, max(0.0, deadline - state.now())))
        except asyncio.TimeoutError:
            pass
        finally:
            for partition in partitions:
                partition.unwatch(changed)
        changed.clear()
    return problem


def _problem(state: State) -> str | None:
    for node_id, broker in state.brokers.items():
        if not broker.is_up:
            return f"broker {node_id} is down"
        if not broker.running.is_set():
            return f"broker {node_id} is paused or cut off from clients"
        if node_id not in state.available:
            return f"broker {node_id} is cut off from the other brokers"
    for topic in state.topics.values():
        for partition in topic.partitions:
            if partition.leader == -1:
                return f"{topic.name}-{partition.index} has no leader"
            if len(partition.in_sync) < len(partition.replicas):
                return f"{topic.name}-{partition.index} is in sync on {partition.in_sync} of {partition.replicas}"
    return None
