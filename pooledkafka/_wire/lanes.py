"""Which request may share a connection with which.

A broker serves one request per connection at a time: from the moment a request is read until its answer is written,
everything behind it waits. So a request that may park on the broker must never sit in front of one that must not wait.
A *lane* is one connection to one broker for requests that may stand in line together.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, NamedTuple

from kafka.protocol.consumer import FetchRequest, JoinGroupRequest, ListOffsetsRequest, SyncGroupRequest
from kafka.protocol.producer import ProduceRequest

__all__ = ["Lane", "LaneKey", "lane_of"]


class Lane(str, Enum):
    """What a connection to a broker is used for."""

    BOOTSTRAP = "bootstrap"
    """Finds the cluster; closed as soon as that is done."""
    CONTROL = "control"
    """Short answers (metadata, heartbeats, commits, offsets): must never wait behind a request that parks."""
    PRODUCE = "produce"
    """Produce requests, in the order sent; with ``acks=all`` each may wait for replicas."""
    FETCH = "fetch"
    """Long polls: they park by design until there is data."""
    CATCH_UP = "catch-up"
    """Fetches of readers that lag, which have data and return at once; opened on demand, closed when idle."""
    LEASED = "leased"
    """JoinGroup and SyncGroup park until every member has come, CreateTopics and the like until it is done: each has
    its connection alone while in flight."""


class LaneKey(NamedTuple):
    """Names one connection; takes the place of the node id as the key in kafka-python's connection manager."""

    node_id: int
    lane: Lane
    number: int = 0
    """Tells apart connections of one lane: the number of the lease, or of the fetch's isolation level and rack."""


def lane_of(request: Any) -> Lane:
    """The lane that ``request`` belongs on."""
    if isinstance(request, ProduceRequest):
        return Lane.PRODUCE
    if isinstance(request, FetchRequest):
        return Lane.FETCH
    if isinstance(request, (JoinGroupRequest, SyncGroupRequest)):
        return Lane.LEASED
    if isinstance(request, ListOffsetsRequest):
        return Lane.CONTROL  # its timeout is for remote storage alone
    # Admin requests that tell the broker how long it may wait; so does Produce, above.
    return Lane.LEASED if hasattr(request, "timeout_ms") else Lane.CONTROL
