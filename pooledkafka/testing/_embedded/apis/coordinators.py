"""FindCoordinator: which broker serves a group or a transactional id."""

from __future__ import annotations

from typing import Any

from kafka.errors import CoordinatorNotAvailableError, InvalidRequestError, NotCoordinatorError
from kafka.protocol.metadata import FindCoordinatorRequest, FindCoordinatorResponse

from ..call import Api, Call

__all__ = ["FIND_COORDINATOR", "check_coordinator"]

_Coordinator = FindCoordinatorResponse.Coordinator
_GROUP, _TRANSACTION = 0, 1


def check_coordinator(call: Call, key: str) -> None:
    """Raise NotCoordinatorError where another broker coordinates this group or transactional id."""
    if call.state.coordinator_of(key) != call.broker.node_id:
        raise NotCoordinatorError(f"broker {call.state.coordinator_of(key)} coordinates {key!r}")


def _found(call: Call, key: str) -> Any:
    node_id = call.state.coordinator_of(key)
    if call.version >= 1 and call.request.key_type not in (_GROUP, _TRANSACTION):
        return _nobody(key, InvalidRequestError.errno)
    if node_id == -1:
        return _nobody(key, CoordinatorNotAvailableError.errno)
    port = call.state.brokers[node_id].ports[call.connection.listener]
    return _Coordinator(key=key, node_id=node_id, host="127.0.0.1", port=port, error_code=0, error_message=None)


def _nobody(key: str, error_code: int) -> Any:
    return _Coordinator(key=key, node_id=-1, host="", port=-1, error_code=error_code, error_message=None)


def _answer(call: Call, found: list[Any]) -> Any:
    if call.version >= 4:
        return call.answer(throttle_time_ms=0, coordinators=found)
    only = found[0]
    return call.answer(
        throttle_time_ms=0,
        error_code=only.error_code,
        error_message=None,
        node_id=only.node_id,
        host=only.host,
        port=only.port,
    )


def _keys(call: Call) -> list[str]:
    return list(call.request.coordinator_keys) if call.version >= 4 else [call.request.key]


async def _handle(call: Call) -> Any:
    return _answer(call, [_found(call, key) for key in _keys(call)])


def _refuse(call: Call, error_code: int) -> Any:
    return _answer(call, [_nobody(key, error_code) for key in _keys(call)])


FIND_COORDINATOR = Api(FindCoordinatorRequest, FindCoordinatorResponse, (0, 4), _handle, _refuse)
