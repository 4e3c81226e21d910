"""AlterClientQuotas and DescribeClientQuotas: the byte rates of clients by their client ids (KIP-546)."""

from __future__ import annotations

from typing import Any

from kafka.errors import BrokerResponseError, InvalidRequestError, UnsupportedVersionError
from kafka.protocol.admin import (
    AlterClientQuotasRequest,
    AlterClientQuotasResponse,
    DescribeClientQuotasRequest,
    DescribeClientQuotasResponse,
)

from ..call import Api, Call, message_of
from ..quotas import NAMES

__all__ = ["ALTER_CLIENT_QUOTAS", "DESCRIBE_CLIENT_QUOTAS"]

_Altered = AlterClientQuotasResponse.EntryData
_Described = DescribeClientQuotasResponse.EntryData
_CLIENT_ID = "client-id"
_ENTITY_TYPES = (_CLIENT_ID, "user", "ip")
_EXACT, _DEFAULT, _ANY = 0, 1, 2


# -- AlterClientQuotas -------------------------------------------------------------------------------------------------


async def _handle_alter(call: Call) -> Any:
    entries = []
    for entry in call.request.entries:
        try:
            _alter(call, entry)
            entries.append(_altered(entry, 0, None))
        except BrokerResponseError as error:
            entries.append(_altered(entry, error.errno, message_of(error)))
    return call.answer(throttle_time_ms=0, entries=entries)


def _alter(call: Call, entry: Any) -> None:
    client_id = _client_id(entry.entity)
    for operation in entry.ops:
        if operation.key not in NAMES:
            raise InvalidRequestError(
                f"Invalid configuration key {operation.key}; the embedded cluster knows {', '.join(NAMES)}"
            )
        # Byte rates are whole numbers (QuotaConfig).
        if not operation.remove and not (operation.value > 0 and operation.value.is_integer()):
            raise InvalidRequestError(f"Quota {operation.key} is {operation.value}; expected a whole number above 0")
    if not call.request.validate_only:
        for operation in entry.ops:
            call.state.quotas.set(operation.key, None if operation.remove else operation.value, client_id)


def _client_id(entity: Any) -> str | None:
    """The client that an entity names; None: the default of all."""
    names = {part.entity_type: part.entity_name for part in entity}
    if not names:
        raise InvalidRequestError("Invalid empty client quota entity")
    if unknown := next((each for each in names if each not in _ENTITY_TYPES), None):
        raise InvalidRequestError(f"Unhandled client quota entity type: {unknown}")
    if list(names) != [_CLIENT_ID]:
        raise InvalidRequestError(
            f"the embedded cluster has quotas for {_CLIENT_ID} alone, none for {' and '.join(sorted(names))}. "
            f"For another, run the test on real Kafka: KafkaCluster"
        )
    name: str | None = names[_CLIENT_ID]
    if name == "":
        raise InvalidRequestError(f"Empty name of the client quota entity {_CLIENT_ID}")
    return name


def _altered(entry: Any, error_code: int, message: str | None) -> Any:
    return _Altered(
        error_code=error_code,
        error_message=message,
        entity=[
            _Altered.EntityData(entity_type=part.entity_type, entity_name=part.entity_name) for part in entry.entity
        ],
    )


def _refuse_alter(call: Call, error_code: int) -> Any:
    refused = [_altered(entry, error_code, None) for entry in call.request.entries]
    return call.answer(throttle_time_ms=0, entries=refused)


ALTER_CLIENT_QUOTAS = Api(AlterClientQuotasRequest, AlterClientQuotasResponse, (0, 1), _handle_alter, _refuse_alter)


# -- DescribeClientQuotas ----------------------------------------------------------------------------------------------


async def _handle_describe(call: Call) -> Any:
    try:
        _check_components(call.request.components)
    except BrokerResponseError as error:
        return _refuse_describe(call, error.errno, message_of(error))
    by_client: dict[str | None, dict[str, float]] = {}
    for (client_id, name), limit in call.state.quotas.limits.items():
        if _matches(client_id, call.request):
            by_client.setdefault(client_id, {})[name] = limit
    entries = [
        _Described(
            entity=[_Described.EntityData(entity_type=_CLIENT_ID, entity_name=client_id)],
            values=[_Described.ValueData(key=name, value=limit) for name, limit in limits.items()],
        )
        for client_id, limits in by_client.items()
    ]
    return call.answer(throttle_time_ms=0, error_code=0, error_message=None, entries=entries)


def _check_components(components: Any) -> None:
    """As Kafka's ClientQuotasImage."""
    types = [each.entity_type for each in components]
    for each in components:
        if each.entity_type == "":
            raise InvalidRequestError("Invalid empty entity type.")
        if types.count(each.entity_type) > 1:
            raise InvalidRequestError(f"Entity type {each.entity_type} cannot appear more than once in the filter.")
        if each.entity_type not in _ENTITY_TYPES:
            raise UnsupportedVersionError(f"Unsupported entity type: {each.entity_type}")
        if each.match_type not in (_EXACT, _DEFAULT, _ANY):
            raise InvalidRequestError(f"Unknown match type {each.match_type}")
        if (each.match is None) == (each.match_type == _EXACT):
            problem = "but set match string to null" if each.match is None else "but also specified a match string"
            raise InvalidRequestError(f"Request specified match type {each.match_type}, {problem}.")
    if "ip" in types and len(types) > 1:
        raise InvalidRequestError(
            "Invalid entity filter component combination, IP filter component should not be used with user or "
            "clientId filter component."
        )


def _matches(client_id: str | None, request: Any) -> bool:
    """Whether the filter takes in a client's quotas, or with None the default's."""
    if not request.components:
        return not request.strict
    for each in request.components:
        if each.entity_type != _CLIENT_ID:
            return False  # there are none for users and addresses
        if each.match_type != _ANY and each.match != client_id:
            return False
    return True


def _refuse_describe(call: Call, error_code: int, message: str | None = None) -> Any:
    return call.answer(throttle_time_ms=0, error_code=error_code, error_message=message, entries=None)


DESCRIBE_CLIENT_QUOTAS = Api(
    DescribeClientQuotasRequest, DescribeClientQuotasResponse, (0, 1), _handle_describe, _refuse_describe
)
