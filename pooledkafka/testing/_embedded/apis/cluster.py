"""DescribeCluster, and ElectLeaders: who is there, and who leads."""

from __future__ import annotations

from typing import Any

from kafka.errors import (
    BrokerResponseError,
    ElectionNotNeededError,
    EligibleLeadersNotAvailableError,
    InvalidRequestError,
    MismatchedEndpointTypeError,
    PreferredLeaderNotAvailableError,
    UnknownTopicOrPartitionError,
    UnsupportedEndpointTypeError,
)
from kafka.protocol.admin import (
    DescribeClusterRequest,
    DescribeClusterResponse,
    ElectionType,
    ElectLeadersRequest,
    ElectLeadersResponse,
)

from ..call import Api, Call, message_of

__all__ = ["DESCRIBE_CLUSTER", "ELECT_LEADERS"]

_Broker = DescribeClusterResponse.DescribeClusterBroker
_Results = ElectLeadersResponse.ReplicaElectionResult
_BROKERS, _CONTROLLERS = 1, 2


# -- DescribeCluster ---------------------------------------------------------------------------------------------------


async def _handle_describe(call: Call) -> Any:
    request, state = call.request, call.state
    if call.version >= 1 and request.endpoint_type != _BROKERS:
        if request.endpoint_type == _CONTROLLERS:
            return _refuse_describe(
                call,
                MismatchedEndpointTypeError.errno,
                "The request was sent to an endpoint of type BROKER, but we wanted an endpoint of type CONTROLLER",
            )
        return _refuse_describe(
            call, UnsupportedEndpointTypeError.errno, f"Unsupported endpoint type {request.endpoint_type}"
        )
    fenced_too = call.version >= 2 and request.include_fenced_brokers
    brokers = [
        _Broker(
            broker_id=node_id,
            host="127.0.0.1",
            port=broker.ports[call.connection.listener],
            rack=broker.settings.broker_rack or None,
            is_fenced=node_id not in state.available,
        )
        for node_id, broker in state.brokers.items()
        if fenced_too or node_id in state.available
    ]
    return call.answer(
        throttle_time_ms=0,
        error_code=0,
        error_message=None,
        endpoint_type=_BROKERS,
        cluster_id=state.cluster_id,
        controller_id=state.controller,
        brokers=brokers,
        authorized_operations=None,
    )


def _refuse_describe(call: Call, error_code: int, message: str | None = None) -> Any:
    return call.answer(
        throttle_time_ms=0,
        error_code=error_code,
        error_message=message,
        endpoint_type=_BROKERS,
        cluster_id="",
        controller_id=-1,
        brokers=[],
        authorized_operations=None,
    )


DESCRIBE_CLUSTER = Api(DescribeClusterRequest, DescribeClusterResponse, (0, 2), _handle_describe, _refuse_describe)


# -- ElectLeaders ------------------------------------------------------------------------------------------------------


async def _handle_elect(call: Call) -> Any:
    kind = call.request.election_type if call.version >= 1 else ElectionType.PREFERRED
    if kind not in (ElectionType.PREFERRED, ElectionType.UNCLEAN):
        return _refuse_elect(call, InvalidRequestError.errno)
    asked = call.request.topic_partitions
    outcomes: dict[str, list[Any]] = {}
    if asked is None:
        for topic in call.state.topics.values():
            for partition in topic.partitions:
                error = _elect(call, topic.name, partition.index, kind)
                if not isinstance(error, ElectionNotNeededError):
                    outcomes.setdefault(topic.name, []).append(_outcome(partition.index, error))
    else:
        for each in asked:
            for index in each.partitions:
                error = _elect(call, each.topic, index, kind)
                outcomes.setdefault(each.topic, []).append(_outcome(index, error))
    return _elect_response(call, 0, outcomes)


def _elect(call: Call, topic: str, index: int, kind: int) -> BrokerResponseError | None:
    """Let the preferred replica lead, or where nobody leads any that is up; as ReplicationControlManager does it."""
    available = call.state.available
    try:
        partition = call.state.partition(topic, index)
    except UnknownTopicOrPartitionError as error:
        return error
    preferred = partition.replicas[0]
    if kind == ElectionType.UNCLEAN:
        if partition.leader != -1:
            return ElectionNotNeededError(ElectionNotNeededError.description)
        candidates = [node_id for node_id in partition.replicas if node_id in available]
        if not candidates:
            return EligibleLeadersNotAvailableError(EligibleLeadersNotAvailableError.description)
        partition.lead(candidates[0])
    elif partition.leader == preferred:
        return ElectionNotNeededError(ElectionNotNeededError.description)
    elif preferred not in partition.in_sync or preferred not in available:
        return PreferredLeaderNotAvailableError(PreferredLeaderNotAvailableError.description)
    else:
        partition.lead(preferred)
    return None


def _outcome(index: int, error: BrokerResponseError | None) -> Any:
    return _Results.PartitionResult(
        partition_id=index,
        error_code=error.errno if error else 0,
        error_message=message_of(error) if error else None,
    )


def _elect_response(call: Call, error_code: int, outcomes: dict[str, list[Any]]) -> Any:
    return call.answer(
        throttle_time_ms=0,
        error_code=error_code,
        replica_election_results=[
            _Results(topic=topic, partition_result=results) for topic, results in outcomes.items()
        ],
    )


def _refuse_elect(call: Call, error_code: int) -> Any:
    outcomes = {
        each.topic: [
            _Results.PartitionResult(partition_id=index, error_code=error_code, error_message=None)
            for index in each.partitions
        ]
        for each in call.request.topic_partitions or ()
    }
    return _elect_response(call, error_code, outcomes)


ELECT_LEADERS = Api(ElectLeadersRequest, ElectLeadersResponse, (0, 2), _handle_elect, _refuse_elect)
