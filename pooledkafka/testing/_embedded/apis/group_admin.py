"""DescribeGroups, ListGroups and DeleteGroups: groups as administrators see them."""

from __future__ import annotations

from typing import Any

from kafka.errors import BrokerResponseError, GroupIdNotFoundError, NonEmptyGroupError
from kafka.protocol.admin import (
    DeleteGroupsRequest,
    DeleteGroupsResponse,
    DescribeGroupsRequest,
    DescribeGroupsResponse,
    ListGroupsRequest,
    ListGroupsResponse,
)

from ..call import Api, Call
from ..group import Group, group_of
from ..group_generations import GroupState
from .coordinators import check_coordinator

__all__ = ["DELETE_GROUPS", "DESCRIBE_GROUPS", "LIST_GROUPS"]

_Described = DescribeGroupsResponse.DescribedGroup
_DescribedMember = _Described.DescribedGroupMember
_Listed = ListGroupsResponse.ListedGroup
_Deleted = DeleteGroupsResponse.DeletableGroupResult
_OPERATIONS = {
    3,
    6,
    8,
    10,
    11,
}  # READ, DELETE, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS: all, as nobody is forbidden any


def _known_group(call: Call, group_id: str) -> Group:
    check_coordinator(call, group_id)
    if group_id not in call.state.groups:
        raise GroupIdNotFoundError(f"Group {group_id} not found.")
    return group_of(call.state, group_id)


# -- DescribeGroups ----------------------------------------------------------------------------------------------------


async def _handle_describe(call: Call) -> Any:
    return call.answer(throttle_time_ms=0, groups=[_described(call, group_id) for group_id in call.request.groups])


def _described(call: Call, group_id: str) -> Any:
    try:
        group = _known_group(call, group_id)
    except GroupIdNotFoundError as error:
        # Before KIP-1043, which made it an error, a group that is not there was dead.
        if call.version >= 6:
            return _undescribed(group_id, error.errno, GroupState.DEAD.value, str(error.args[0]))
        return _undescribed(group_id, 0, GroupState.DEAD.value, None, _operations(call))
    except BrokerResponseError as error:
        return _undescribed(group_id, error.errno)
    is_stable = group.state is GroupState.STABLE
    return _Described(
        error_code=0,
        error_message=None,
        group_id=group_id,
        group_state=group.state.value,
        protocol_type=group.protocol_type or "",
        protocol_data=group.protocol_name or "" if is_stable else "",
        members=[
            _DescribedMember(
                member_id=member.member_id,
                group_instance_id=member.instance_id,
                client_id=member.client_id or "",
                client_host=member.client_host,
                member_metadata=member.metadata(group.protocol_name) if is_stable else b"",
                member_assignment=member.assignment,
            )
            for member in group.members.values()
        ],
        authorized_operations=_operations(call),
    )


def _operations(call: Call) -> set[int] | None:
    return _OPERATIONS if call.version >= 3 and call.request.include_authorized_operations else None


def _undescribed(
    group_id: str, error_code: int, state: str = "", message: str | None = None, operations: set[int] | None = None
) -> Any:
    return _Described(
        error_code=error_code,
        error_message=message,
        group_id=group_id,
        group_state=state,
        protocol_type="",
        protocol_data="",
        members=[],
        authorized_operations=operations,
    )


def _refuse_describe(call: Call, error_code: int) -> Any:
    groups = [_undescribed(group_id, error_code) for group_id in call.request.groups]
    return call.answer(throttle_time_ms=0, groups=groups)


DESCRIBE_GROUPS = Api(DescribeGroupsRequest, DescribeGroupsResponse, (0, 6), _handle_describe, _refuse_describe)


# -- ListGroups --------------------------------------------------------------------------------------------------------


async def _handle_list(call: Call) -> Any:
    """Only the groups that this broker coordinates; the filters heed no case (KIP-518, KIP-848)."""
    states = {state.lower() for state in call.request.states_filter} if call.version >= 4 else set()
    types = {kind.lower() for kind in call.request.types_filter} if call.version >= 5 else set()
    listed = [
        _Listed(
            group_id=group_id,
            protocol_type=group.protocol_type or "",
            group_state=group.state.value,
            group_type="classic",
        )
        for group_id, group in call.state.groups.items()
        if call.state.coordinator_of(group_id) == call.broker.node_id
        and (not states or group.state.value.lower() in states)
        and (not types or "classic" in types)
    ]
    return call.answer(throttle_time_ms=0, error_code=0, groups=listed)


def _refuse_list(call: Call, error_code: int) -> Any:
    return call.answer(throttle_time_ms=0, error_code=error_code, groups=[])


LIST_GROUPS = Api(ListGroupsRequest, ListGroupsResponse, (0, 5), _handle_list, _refuse_list)


# -- DeleteGroups ------------------------------------------------------------------------------------------------------


async def _handle_delete(call: Call) -> Any:
    results = [
        _Deleted(group_id=group_id, error_code=_delete(call, group_id))
        for group_id in dict.fromkeys(call.request.groups_names)
    ]
    return call.answer(throttle_time_ms=0, results=results)


def _delete(call: Call, group_id: str) -> int:
    try:
        group = _known_group(call, group_id)
        if group.state is not GroupState.EMPTY:
            raise NonEmptyGroupError(f"group {group_id!r} has members")
    except BrokerResponseError as error:
        return int(error.errno)
    group.delete()
    del call.state.groups[group_id]
    return 0


def _refuse_delete(call: Call, error_code: int) -> Any:
    results = [_Deleted(group_id=group_id, error_code=error_code) for group_id in call.request.groups_names]
    return call.answer(throttle_time_ms=0, results=results)


DELETE_GROUPS = Api(DeleteGroupsRequest, DeleteGroupsResponse, (0, 2), _handle_delete, _refuse_delete)
