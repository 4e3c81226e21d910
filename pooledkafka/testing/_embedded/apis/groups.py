"""JoinGroup, SyncGroup, Heartbeat and LeaveGroup: what the members of a group ask."""

from __future__ import annotations

from typing import Any

from kafka.errors import (
    BrokerResponseError,
    InconsistentGroupProtocolError,
    InvalidGroupIdError,
    InvalidSessionTimeoutError,
    UnknownMemberIdError,
)
from kafka.protocol.consumer import (
    HeartbeatRequest,
    HeartbeatResponse,
    JoinGroupRequest,
    JoinGroupResponse,
    LeaveGroupRequest,
    LeaveGroupResponse,
    SyncGroupRequest,
    SyncGroupResponse,
)

from ..call import Api, Call
from ..group import Group, group_of
from ..group_member import JoinAnswer, Joining, SyncAnswer
from .coordinators import check_coordinator

__all__ = ["HEARTBEAT", "JOIN_GROUP", "LEAVE_GROUP", "SYNC_GROUP"]

_Joined = JoinGroupResponse.JoinGroupResponseMember
_Left = LeaveGroupResponse.MemberResponse


def _check_group_id(call: Call) -> None:
    if not call.request.group_id:
        raise InvalidGroupIdError("the group id is empty")


def _known_group(call: Call) -> Group:
    """The group that a member belongs to, if this broker coordinates it."""
    _check_group_id(call)
    check_coordinator(call, call.request.group_id)
    if call.request.group_id not in call.state.groups:
        raise UnknownMemberIdError(f"there is no group {call.request.group_id!r}")
    return group_of(call.state, call.request.group_id)


async def _silence(call: Call) -> None:
    """A later request of the same member has taken the place of this one, which is never answered."""
    await call.connection.ended.wait()


# -- JoinGroup ---------------------------------------------------------------------------------------------------------


async def _handle_join(call: Call) -> Any:
    request, settings = call.request, call.settings
    try:
        _check_group_id(call)
        longest_ms = settings.group_max_session_timeout_ms
        if not settings.group_min_session_timeout_ms <= request.session_timeout_ms <= longest_ms:
            raise InvalidSessionTimeoutError(f"{request.session_timeout_ms} ms")
        check_coordinator(call, request.group_id)
        group = _known_group(call) if request.member_id else group_of(call.state, request.group_id)
    except BrokerResponseError as error:
        return _refuse_join(call, error.errno)
    rebalance_timeout_ms = request.session_timeout_ms if call.version == 0 else request.rebalance_timeout_ms
    answer = await group.join(
        Joining(
            request.member_id,
            request.protocol_type,
            tuple((protocol.name, bytes(protocol.metadata)) for protocol in request.protocols),
            request.session_timeout_ms / 1000,
            max(0, rebalance_timeout_ms) / 1000,
            request.group_instance_id,
            call.client_id,
            must_know_its_id=call.version >= 4,
            may_skip_assignment=call.version >= 9,
        )
    )
    return await _silence(call) if answer is None else _join_response(call, answer)


def _join_response(call: Call, answer: JoinAnswer) -> Any:
    return call.answer(
        throttle_time_ms=0,
        error_code=answer.error_code,
        generation_id=answer.generation_id,
        protocol_type=answer.protocol_type,
        protocol_name=answer.protocol_name if call.version >= 7 else answer.protocol_name or "",
        leader=answer.leader,
        skip_assignment=answer.skip_assignment,
        member_id=answer.member_id,
        members=[
            _Joined(member_id=member_id, group_instance_id=instance_id, metadata=metadata)
            for member_id, instance_id, metadata in answer.members
        ],
    )


def _refuse_join(call: Call, error_code: int) -> Any:
    return _join_response(call, JoinAnswer(error_code, call.request.member_id))


JOIN_GROUP = Api(JoinGroupRequest, JoinGroupResponse, (0, 9), _handle_join, _refuse_join)


# -- SyncGroup ---------------------------------------------------------------------------------------------------------


async def _handle_sync(call: Call) -> Any:
    request = call.request
    try:
        if call.version >= 5 and None in (request.protocol_type, request.protocol_name):
            raise InconsistentGroupProtocolError("the protocol is not named")  # KIP-559
        group = _known_group(call)
    except BrokerResponseError as error:
        return _refuse_sync(call, error.errno)
    answer = await group.sync(
        request.member_id,
        request.group_instance_id,
        request.generation_id,
        request.protocol_type,
        request.protocol_name,
        {each.member_id: bytes(each.assignment) for each in request.assignments},
    )
    return await _silence(call) if answer is None else _sync_response(call, answer)


def _sync_response(call: Call, answer: SyncAnswer) -> Any:
    return call.answer(
        throttle_time_ms=0,
        error_code=answer.error_code,
        protocol_type=answer.protocol_type,
        protocol_name=answer.protocol_name,
        assignment=answer.assignment,
    )


def _refuse_sync(call: Call, error_code: int) -> Any:
    return _sync_response(call, SyncAnswer(error_code))


SYNC_GROUP = Api(SyncGroupRequest, SyncGroupResponse, (0, 5), _handle_sync, _refuse_sync)


# -- Heartbeat ---------------------------------------------------------------------------------------------------------


async def _handle_heartbeat(call: Call) -> Any:
    request = call.request
    try:
        _known_group(call).heartbeat(request.member_id, request.group_instance_id, request.generation_id)
    except BrokerResponseError as error:
        return _heartbeat_response(call, error.errno)
    return _heartbeat_response(call, 0)


def _heartbeat_response(call: Call, error_code: int) -> Any:
    return call.answer(throttle_time_ms=0, error_code=error_code)


HEARTBEAT = Api(HeartbeatRequest, HeartbeatResponse, (0, 4), _handle_heartbeat, _heartbeat_response)


# -- LeaveGroup --------------------------------------------------------------------------------------------------------


async def _handle_leave(call: Call) -> Any:
    request = call.request
    leaving = [(request.member_id, None)]
    if call.version >= 3:
        leaving = [(each.member_id, each.group_instance_id) for each in request.members]
    try:
        error_codes = _known_group(call).leave(leaving)
    except UnknownMemberIdError as error:  # there is no such group, so nobody is in it
        error_codes = [error.errno] * len(leaving)
    except BrokerResponseError as error:
        return _refuse_leave(call, error.errno)
    if call.version < 3:
        return call.answer(throttle_time_ms=0, error_code=error_codes[0])
    left = [
        _Left(member_id=member_id, group_instance_id=instance_id, error_code=error_code)
        for (member_id, instance_id), error_code in zip(leaving, error_codes, strict=True)
    ]
    return call.answer(throttle_time_ms=0, error_code=0, members=left)


def _refuse_leave(call: Call, error_code: int) -> Any:
    return call.answer(throttle_time_ms=0, error_code=error_code)


LEAVE_GROUP = Api(LeaveGroupRequest, LeaveGroupResponse, (0, 5), _handle_leave, _refuse_leave)
