"""DescribeConfigs, IncrementalAlterConfigs and AlterConfigs, as clients see them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from kafka import KafkaAdminClient
from kafka.admin import AlterConfigOp, ConfigResource, ConfigResourceType
from kafka.errors import InvalidConfigurationError, InvalidRequestError, InvalidTopicError, UnknownTopicOrPartitionError
from kafka.protocol.admin import AlterConfigsRequest, DescribeConfigsRequest, IncrementalAlterConfigsRequest

from pooledkafka.testing import EmbeddedKafka, Error
from tests.testing._embedded.wire import Wire

TOPIC, BROKER = ConfigResourceType.TOPIC, ConfigResourceType.BROKER
SET, DELETE, APPEND, SUBTRACT = AlterConfigOp.SET, AlterConfigOp.DELETE, AlterConfigOp.APPEND, AlterConfigOp.SUBTRACT


@pytest.fixture
def cluster() -> Iterator[EmbeddedKafka]:
    config = {"message.max.bytes": "5000"}
    with EmbeddedKafka(brokers=2, config=config, broker_config={2: {"broker.rack": "b"}}) as cluster:
        cluster.create_topic("t", config={"min.insync.replicas": "2"})
        yield cluster


@pytest.fixture
def admin(cluster: EmbeddedKafka) -> Iterator[KafkaAdminClient]:
    admin = KafkaAdminClient(**cluster.client_options())
    yield admin
    admin.close()


# -- DescribeConfigs ---------------------------------------------------------------------------------------------------


def described(admin: KafkaAdminClient, kind: str, name: str, configs: Any = None, **options: Any) -> dict[str, Any]:
    answered = admin.describe_configs([ConfigResource(kind, name, configs)], **{"config_filter": "all", **options})
    result: dict[str, Any] = answered[kind.lower()][name]
    return result


def test_a_topics_configuration_and_where_it_comes_from(admin: KafkaAdminClient) -> None:
    configs = described(admin, "TOPIC", "t", include_synonyms=True)
    assert {name: (each["value"], each["config_source"], each["config_type"]) for name, each in configs.items()} == {
        "cleanup.policy": ("delete", "DEFAULT_CONFIG", "LIST"),
        "compression.type": ("producer", "DEFAULT_CONFIG", "STRING"),
        "max.message.bytes": ("5000", "STATIC_BROKER_CONFIG", "INT"),
        "message.timestamp.type": ("CreateTime", "DEFAULT_CONFIG", "STRING"),
        "min.insync.replicas": ("2", "DYNAMIC_TOPIC_CONFIG", "INT"),
        "retention.ms": ("-1", "DEFAULT_CONFIG", "LONG"),
    }
    assert configs["max.message.bytes"]["synonyms"] == [
        {"name": "message.max.bytes", "value": "5000", "source": "STATIC_BROKER_CONFIG"},
        {"name": "message.max.bytes", "value": "1048588", "source": "DEFAULT_CONFIG"},
    ]
    assert configs["min.insync.replicas"]["synonyms"][0] == {
        "name": "min.insync.replicas",
        "value": "2",
        "source": "DYNAMIC_TOPIC_CONFIG",
    }
    assert not any(each["read_only"] or each["is_sensitive"] for each in configs.values())
    assert described(admin, "TOPIC", "t", config_filter="modified").keys() == {"min.insync.replicas"}
    assert described(admin, "TOPIC", "t", ["retention.ms", "none"]).keys() == {"retention.ms"}
    without = described(admin, "TOPIC", "t", ["retention.ms"])["retention.ms"]
    assert without["synonyms"] == []


def test_a_brokers_properties(admin: KafkaAdminClient) -> None:
    configs = described(admin, "BROKER", "2")
    assert configs["message.max.bytes"]["value"] == "5000"
    assert configs["message.max.bytes"]["config_source"] == "STATIC_BROKER_CONFIG"
    assert configs["broker.rack"]["value"] == "b"
    assert (configs["num.partitions"]["value"], configs["num.partitions"]["config_type"]) == ("1", "INT")
    assert configs["auto.create.topics.enable"]["value"] == "true"
    assert configs["auto.create.topics.enable"]["config_type"] == "BOOLEAN"
    assert all(each["read_only"] for each in configs.values())
    assert described(admin, "BROKER", "1")["broker.rack"]["value"] is None


@pytest.mark.parametrize("version", range(1, 5))
def test_all_versions_of_describe_configs(wire: Wire, version: int) -> None:
    kind = DescribeConfigsRequest.DescribeConfigsResource
    asked = [(TOPIC, "t"), (BROKER, "1"), (BROKER, ""), (TOPIC, "u"), (TOPIC, "a b"), (BROKER, "2"), (BROKER, "x")]
    asked.append((ConfigResourceType.GROUP, "g"))
    resources = [kind(resource_type=type_, resource_name=name, configuration_keys=None) for type_, name in asked]
    results = wire.ask(DescribeConfigsRequest(resources=resources), version).results
    assert [(result.resource_type, result.resource_name) for result in results] == asked
    assert [result.error_code for result in results] == [
        0,
        0,
        0,
        UnknownTopicOrPartitionError.errno,
        InvalidTopicError.errno,
        InvalidRequestError.errno,
        InvalidRequestError.errno,
        InvalidRequestError.errno,
    ]
    topic, broker, defaults, *refused = (result.configs for result in results)
    assert len(topic) == 6
    assert "num.partitions" in {config.name for config in broker}
    assert defaults == []
    assert not any(refused)
    assert results[5].error_message == "Unexpected broker id, expected 1 or empty string, but received 2"


# -- changing ----------------------------------------------------------------------------------------------------------


def test_a_topics_configuration_is_changed_and_taken_back(admin: KafkaAdminClient) -> None:
    changed = {"max.message.bytes": "100", "retention.ms": "-1"}
    assert admin.alter_configs([ConfigResource("TOPIC", "t", changed)]) == {"topic": {"t": "OK"}}
    modified = described(admin, "TOPIC", "t", config_filter="modified")
    assert {name: each["value"] for name, each in modified.items()} == {
        "max.message.bytes": "100",
        "min.insync.replicas": "2",
        "retention.ms": "-1",
    }
    assert admin.reset_configs([ConfigResource("TOPIC", "t", ["max.message.bytes"])]) == {"topic": {"t": "OK"}}
    assert described(admin, "TOPIC", "t", config_filter="modified").keys() == {"min.insync.replicas", "retention.ms"}


def test_an_old_clients_change_takes_back_what_it_does_not_name(admin: KafkaAdminClient, wire: Wire) -> None:
    for version in range(3):
        assert alter(wire, "t", [("max.message.bytes", "100")], version=version) == (0, None)
        assert described(admin, "TOPIC", "t", config_filter="modified").keys() == {"max.message.bytes"}
    assert alter(wire, "t", [("max.message.bytes", None)])[0] == InvalidRequestError.errno
    assert alter(wire, "t", [("unknown", "1")])[0] == InvalidConfigurationError.errno
    assert described(admin, "TOPIC", "t", config_filter="modified").keys() == {"max.message.bytes"}


def alter(wire: Wire, topic: str, configs: Any, version: int = 2) -> tuple[int, str | None]:
    kind = AlterConfigsRequest.AlterConfigsResource
    resource = kind(
        resource_type=TOPIC,
        resource_name=topic,
        configs=[kind.AlterableConfig(name=name, value=value) for name, value in configs],
    )
    (response,) = wire.ask(AlterConfigsRequest(resources=[resource], validate_only=False), version).responses
    return response.error_code, response.error_message


_Resource = IncrementalAlterConfigsRequest.AlterConfigsResource


def resource(type_: int, name: str, *changes: tuple[str, int, str | None]) -> Any:
    configs = [
        _Resource.AlterableConfig(name=config, config_operation=operation, value=value)
        for config, operation, value in changes
    ]
    return _Resource(resource_type=type_, resource_name=name, configs=configs)


def change(wire: Wire, *resources: Any, version: int = 1, validate_only: bool = False) -> list[tuple[int, str | None]]:
    request = IncrementalAlterConfigsRequest(resources=list(resources), validate_only=validate_only)
    return [(each.error_code, each.error_message) for each in wire.ask(request, version).responses]


@pytest.mark.parametrize("version", [0, 1])
def test_validating_changes_nothing(admin: KafkaAdminClient, wire: Wire, version: int) -> None:
    asked = resource(TOPIC, "t", ("min.insync.replicas", SET, "1"))
    assert change(wire, asked, version=version, validate_only=True) == [(0, None)]
    assert described(admin, "TOPIC", "t")["min.insync.replicas"]["value"] == "2"
    assert change(wire, asked, version=version) == [(0, None)]
    assert described(admin, "TOPIC", "t")["min.insync.replicas"]["value"] == "1"


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ([("unknown", SET, "1")], InvalidConfigurationError, "Unknown topic config name: unknown"),
        ([("unknown", DELETE, None)], InvalidConfigurationError, "Unknown topic config name: unknown"),
        ([("min.insync.replicas", SET, "0")], InvalidConfigurationError, "Value must be at least 1"),
        ([("min.insync.replicas", SET, None)], InvalidRequestError, "Null value not supported for : min.insync"),
        ([("min.insync.replicas", APPEND, "1")], InvalidConfigurationError, "its type is not LIST"),
        ([("cleanup.policy", APPEND, "compact")], InvalidConfigurationError, "Invalid value delete,compact"),
        ([("cleanup.policy", SUBTRACT, "delete")], InvalidConfigurationError, "knows 'delete' alone"),
        ([("retention.ms", SET, "-1"), ("retention.ms", DELETE, None)], InvalidRequestError, "duplicate config keys"),
        ([("retention.ms", 4, "-1")], InvalidRequestError, "Unknown operation type 4"),
    ],
)
def test_a_change_that_cannot_be_is_refused_whole(
    admin: KafkaAdminClient, wire: Wire, changes: list[tuple[str, int, str | None]], error: Any, said: str
) -> None:
    ((code, message),) = change(wire, resource(TOPIC, "t", ("max.message.bytes", SET, "7"), *changes))
    assert code == error.errno
    assert message is not None
    assert said in message
    modified = described(admin, "TOPIC", "t", config_filter="modified")
    assert {name: each["value"] for name, each in modified.items()} == {"min.insync.replicas": "2"}


def test_appending_what_is_there_is_no_change(wire: Wire) -> None:
    assert change(wire, resource(TOPIC, "t", ("cleanup.policy", APPEND, "delete"))) == [(0, None)]


def test_resources_that_cannot_be_changed(wire: Wire) -> None:
    refused = InvalidRequestError.errno
    brokers, groups, twice = change(
        wire,
        resource(BROKER, "1", ("num.partitions", SET, "2")),
        resource(ConfigResourceType.GROUP, "g"),
        resource(TOPIC, "t", ("max.message.bytes", SET, "7")),
        resource(TOPIC, "t", ("max.message.bytes", SET, "8")),
    )
    assert brokers[0] == groups[0] == twice[0] == refused
    assert "EmbeddedKafka(config=" in str(brokers[1])
    assert groups[1] == "Unknown resource type 32"
    assert twice[1] == "Each resource must appear at most once."
    assert change(wire, resource(TOPIC, "u"))[0][0] == UnknownTopicOrPartitionError.errno


def test_a_fault_refuses_all_that_was_asked(cluster: EmbeddedKafka, wire: Wire) -> None:
    refused = InvalidRequestError.errno
    kind = DescribeConfigsRequest.DescribeConfigsResource
    asked = [kind(resource_type=TOPIC, resource_name="t", configuration_keys=None)]
    with cluster.intercept(action=Error(InvalidRequestError)):
        assert [each.error_code for each in wire.ask(DescribeConfigsRequest(resources=asked), 4).results] == [refused]
        assert change(wire, resource(TOPIC, "t")) == [(refused, None)]
        assert alter(wire, "t", []) == (refused, None)
