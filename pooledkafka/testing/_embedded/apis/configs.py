"""DescribeConfigs, IncrementalAlterConfigs and AlterConfigs.

The configuration of topics can be changed while they are used; the brokers' properties can only be read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from kafka.admin import AlterConfigOp, ConfigResourceType, ConfigSourceType, ConfigType
from kafka.errors import BrokerResponseError, InvalidConfigurationError, InvalidRequestError, InvalidTopicError
from kafka.protocol.admin import (
    AlterConfigsRequest,
    AlterConfigsResponse,
    DescribeConfigsRequest,
    DescribeConfigsResponse,
    IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse,
)

from ..call import Api, Call, message_of
from ..settings import Settings
from ..topic import Topic, is_legal_name, merged
from ..topic_config import LISTS, TOPIC_CONFIGS, checked_config

__all__ = ["ALTER_CONFIGS", "DESCRIBE_CONFIGS", "INCREMENTAL_ALTER_CONFIGS", "ConfigEntry", "topic_entries"]

_Described = DescribeConfigsResponse.DescribeConfigsResult
_DescribedConfig = _Described.DescribeConfigsResourceResult
_KINDS = {bool: ConfigType.BOOLEAN, int: ConfigType.INT, str: ConfigType.STRING}
_NOT_SET = Settings()


@dataclass(frozen=True)
class ConfigEntry:
    """One configuration as it is described.

    ``synonyms`` are all that say something of it, by name, value and source; the first one holds.
    """

    name: str
    value: str | None
    kind: ConfigType
    synonyms: list[tuple[str, str | None, ConfigSourceType]]

    @property
    def source(self) -> ConfigSourceType:
        return self.synonyms[0][2] if self.synonyms else ConfigSourceType.DEFAULT_CONFIG


def topic_entries(config: Mapping[str, str], settings: Settings) -> list[ConfigEntry]:
    """All configurations of a topic, by name; those that it does not have are the brokers'."""
    entries = []
    for name, known in sorted(TOPIC_CONFIGS.items()):
        synonyms = _property_synonyms(known.property_name, known.default(settings), known.default(_NOT_SET))
        if name in config:
            synonyms.insert(0, (name, config[name], ConfigSourceType.DYNAMIC_TOPIC_CONFIG))
        entries.append(ConfigEntry(name, synonyms[0][1], known.kind, synonyms))
    return entries


def _broker_entries(settings: Settings) -> list[ConfigEntry]:
    entries = []
    for name in Settings.property_names():
        value = settings.value_of(name)
        synonyms = _property_synonyms(name, value, _NOT_SET.value_of(name))
        entries.append(ConfigEntry(name, value, _KINDS[Settings.kind_of(name)], synonyms))
    return entries


def _property_synonyms(name: str, value: str | None, default: str | None) -> list[Any]:
    synonyms = [(name, default, ConfigSourceType.DEFAULT_CONFIG)]
    if value != default:
        synonyms.insert(0, (name, value, ConfigSourceType.STATIC_BROKER_CONFIG))
    return synonyms


# -- DescribeConfigs ---------------------------------------------------------------------------------------------------


async def _handle_describe(call: Call) -> Any:
    def one(asked: Any) -> Any:
        try:
            entries, read_only = _entries(call, asked.resource_type, asked.resource_name)
        except BrokerResponseError as error:
            return _not_described(asked, error.errno, message_of(error))
        names = asked.configuration_keys  # none at all: all, as in Kafka's ConfigHelper
        shown = [entry for entry in entries if not names or entry.name in names]
        return _Described(
            error_code=0,
            error_message=None,
            resource_type=asked.resource_type,
            resource_name=asked.resource_name,
            configs=[_described(entry, read_only, call.request.include_synonyms) for entry in shown],
        )

    return call.answer(throttle_time_ms=0, results=[one(asked) for asked in call.request.resources])


def _described(entry: ConfigEntry, read_only: bool, with_synonyms: bool) -> Any:
    return _DescribedConfig(
        name=entry.name,
        value=entry.value,
        read_only=read_only,
        config_source=entry.source,
        is_sensitive=False,
        synonyms=[
            _DescribedConfig.DescribeConfigsSynonym(name=name, value=value, source=source)
            for name, value, source in (entry.synonyms if with_synonyms else [])
        ],
        config_type=entry.kind,
        documentation=None,
    )


def _entries(call: Call, resource_type: int, name: str) -> tuple[list[ConfigEntry], bool]:
    """What there is to say of a resource, and whether it can only be read."""
    if resource_type == ConfigResourceType.TOPIC:
        return topic_entries(_topic(call, name).config, call.settings), False
    if resource_type == ConfigResourceType.BROKER:
        if name == "":
            return [], True  # the defaults that were set for all brokers while they run: there are none
        if _node_id(name) != call.broker.node_id:
            raise InvalidRequestError(
                f"Unexpected broker id, expected {call.broker.node_id} or empty string, but received {name}"
            )
        return _broker_entries(call.settings), True
    raise InvalidRequestError(f"Unsupported resource type: {resource_type}")


def _topic(call: Call, name: str) -> Topic:
    if not is_legal_name(name):
        raise InvalidTopicError(f"{name!r} is no legal name")
    return call.state.topic(name)


def _node_id(name: str) -> int:
    try:
        return int(name)
    except ValueError:
        raise InvalidRequestError(f"Broker id must be an integer, but it is: {name}") from None


def _not_described(asked: Any, error_code: int, message: str | None) -> Any:
    return _Described(
        error_code=error_code,
        error_message=message,
        resource_type=asked.resource_type,
        resource_name=asked.resource_name,
        configs=[],
    )


def _refuse_describe(call: Call, error_code: int) -> Any:
    refused = [_not_described(asked, error_code, None) for asked in call.request.resources]
    return call.answer(throttle_time_ms=0, results=refused)


DESCRIBE_CONFIGS = Api(DescribeConfigsRequest, DescribeConfigsResponse, (1, 4), _handle_describe, _refuse_describe)


# -- AlterConfigs and IncrementalAlterConfigs --------------------------------------------------------------------------


def _changed(config: Mapping[str, str], changes: Any) -> dict[str, str]:
    """A topic's configuration after an incremental change."""
    if len({each.name for each in changes}) < len(changes):
        raise InvalidRequestError("Error due to duplicate config keys")
    _check_values([each for each in changes if each.config_operation != AlterConfigOp.DELETE])
    new: dict[str, str | None] = {}
    for each in changes:
        if each.config_operation == AlterConfigOp.SET:
            new[each.name] = each.value
        elif each.config_operation == AlterConfigOp.DELETE:
            new[each.name] = None
        elif each.config_operation in (AlterConfigOp.APPEND, AlterConfigOp.SUBTRACT):
            new[each.name] = _list_changed(config, each)
        else:
            raise InvalidRequestError(f"Unknown operation type {each.config_operation}")
        if each.name not in TOPIC_CONFIGS:
            checked_config({each.name: ""})  # says so
    return checked_config(merged(config, new))


def _list_changed(config: Mapping[str, str], change: Any) -> str:
    operation = AlterConfigOp(change.config_operation)
    if change.name not in LISTS:
        raise InvalidConfigurationError(f"Can't {operation.name} to key {change.name} because its type is not LIST.")
    now = config.get(change.name, TOPIC_CONFIGS[change.name].only).split(",")
    values = change.value.split(",")
    if operation == AlterConfigOp.APPEND:
        return ",".join([*now, *(value for value in values if value not in now)])
    return ",".join(value for value in now if value not in values)


def _replaced(_: Mapping[str, str], configs: Any) -> dict[str, str]:
    """A topic's configuration after it was set anew: what is not named is taken back."""
    _check_values(configs)
    return checked_config({each.name: each.value for each in configs})


def _check_values(configs: Any) -> None:
    if missing := [each.name for each in configs if each.value is None]:
        raise InvalidRequestError(f"Null value not supported for : {','.join(missing)}")


def _alter(call: Call, change: Callable[[Mapping[str, str], Any], dict[str, str]]) -> Any:
    times = Counter((asked.resource_type, asked.resource_name) for asked in call.request.resources)

    def one(asked: Any) -> BrokerResponseError | None:
        try:
            if times[asked.resource_type, asked.resource_name] > 1:
                raise InvalidRequestError("Each resource must appear at most once.")
            if asked.resource_type == ConfigResourceType.BROKER:
                raise InvalidRequestError(
                    "the embedded cluster does not change the properties of brokers that run; "
                    "pass them to EmbeddedKafka(config=..., broker_config=...)"
                )
            if asked.resource_type != ConfigResourceType.TOPIC:
                raise InvalidRequestError(f"Unknown resource type {asked.resource_type}")
            topic = _topic(call, asked.resource_name)
            config = change(topic.config, asked.configs)
            if not call.request.validate_only:
                topic.config = config
        except BrokerResponseError as error:
            return error
        return None

    results = {}
    for asked in call.request.resources:
        error = one(asked)
        code, message = (error.errno, message_of(error)) if error else (0, None)
        results[asked.resource_type, asked.resource_name] = _altered(call, asked, code, message)
    return call.answer(throttle_time_ms=0, responses=list(results.values()))


def _altered(call: Call, asked: Any, error_code: int, message: str | None) -> Any:
    return call.api.response.AlterConfigsResourceResponse(
        error_code=error_code,
        error_message=message,
        resource_type=asked.resource_type,
        resource_name=asked.resource_name,
    )


async def _handle_incremental(call: Call) -> Any:
    return _alter(call, _changed)


async def _handle_alter(call: Call) -> Any:
    return _alter(call, _replaced)


def _refuse_alter(call: Call, error_code: int) -> Any:
    refused = [_altered(call, asked, error_code, None) for asked in call.request.resources]
    return call.answer(throttle_time_ms=0, responses=refused)


INCREMENTAL_ALTER_CONFIGS = Api(
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse, (0, 1), _handle_incremental, _refuse_alter
)
ALTER_CONFIGS = Api(AlterConfigsRequest, AlterConfigsResponse, (0, 2), _handle_alter, _refuse_alter)
