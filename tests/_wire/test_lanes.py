from __future__ import annotations

from typing import Any

import pytest
from kafka.protocol.admin import CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest
from kafka.protocol.consumer import (
    FetchRequest,
    HeartbeatRequest,
    JoinGroupRequest,
    LeaveGroupRequest,
    OffsetCommitRequest,
    OffsetFetchRequest,
    SyncGroupRequest,
)
from kafka.protocol.metadata import FindCoordinatorRequest, MetadataRequest
from kafka.protocol.producer import InitProducerIdRequest, ProduceRequest

from pooledkafka._wire.lanes import Lane, LaneKey, lane_of


@pytest.mark.parametrize(
    ("request_class", "lane"),
    [
        (ProduceRequest, Lane.PRODUCE),
        (FetchRequest, Lane.FETCH),
        (JoinGroupRequest, Lane.LEASED),
        (SyncGroupRequest, Lane.LEASED),
        (MetadataRequest, Lane.CONTROL),
        (FindCoordinatorRequest, Lane.CONTROL),
        (HeartbeatRequest, Lane.CONTROL),
        (LeaveGroupRequest, Lane.CONTROL),
        (OffsetCommitRequest, Lane.CONTROL),
        (OffsetFetchRequest, Lane.CONTROL),
        (InitProducerIdRequest, Lane.CONTROL),
    ],
)
def test_what_may_park_stands_in_no_ones_way(request_class: Any, lane: Lane) -> None:
    assert lane_of(request_class()) is lane
    assert lane_of(request_class(version=1)) is lane, "whatever its version"


@pytest.mark.parametrize("request_class", [CreateTopicsRequest, DeleteTopicsRequest, CreatePartitionsRequest])
def test_admin_requests_that_wait_on_the_broker_have_a_connection_alone(request_class: Any) -> None:
    assert lane_of(request_class()) is Lane.LEASED


def test_a_key_tells_brokers_lanes_and_numbers_apart() -> None:
    keys = {LaneKey(node, lane, number) for node in (1, 2) for lane in Lane for number in (0, 1)}
    assert len(keys) == 2 * len(Lane) * 2
    assert LaneKey(1, Lane.CONTROL) == LaneKey(1, Lane.CONTROL, 0)
