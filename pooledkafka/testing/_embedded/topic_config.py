"""The configurations of topics that are understood: those that are heeded, and those that say what is done anyway."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from kafka.admin import ConfigType
from kafka.errors import InvalidConfigurationError

from .settings import Settings

__all__ = ["LISTS", "TOPIC_CONFIGS", "TopicConfig", "checked_config"]

_NUMBER = re.compile(r"\s*[+-]?[0-9]{1,10}\s*")


@dataclass(frozen=True)
class TopicConfig:
    """One configuration.

    Args:
        name: as Kafka spells it.
        kind: what its values are.
        property_name: the brokers' property that holds for topics without it.
        lowest: the least value of a number that is heeded; None: only ``only`` is accepted.
        only: what the cluster does anyway, and the only value there is.
    """

    name: str
    kind: ConfigType
    property_name: str
    lowest: int | None = None
    only: str = ""

    def check(self, value: str) -> None:
        """Raise InvalidConfigurationError for a value that cannot be, or that would not be heeded."""
        if self.lowest is None:
            if value.strip() != self.only:
                raise InvalidConfigurationError(
                    f"Invalid value {value} for configuration {self.name}: the embedded cluster knows {self.only!r} "
                    f"alone. For another, run the test on real Kafka: KafkaCluster"
                )
            return
        number = int(value) if _NUMBER.fullmatch(value) else 2**31
        if not -(2**31) <= number < 2**31:
            raise InvalidConfigurationError(
                f"Invalid value {value} for configuration {self.name}: Not a number of type INT"
            )
        if number < self.lowest:
            raise InvalidConfigurationError(
                f"Invalid value {value} for configuration {self.name}: Value must be at least {self.lowest}"
            )

    def default(self, settings: Settings) -> str:
        """The value of topics without it."""
        return self.only if self.lowest is None else str(settings.value_of(self.property_name))


TOPIC_CONFIGS = {
    config.name: config
    for config in (
        TopicConfig("cleanup.policy", ConfigType.LIST, "log.cleanup.policy", only="delete"),
        TopicConfig("compression.type", ConfigType.STRING, "compression.type", only="producer"),
        TopicConfig("max.message.bytes", ConfigType.INT, "message.max.bytes", lowest=0),
        TopicConfig("message.timestamp.type", ConfigType.STRING, "log.message.timestamp.type", only="CreateTime"),
        TopicConfig("min.insync.replicas", ConfigType.INT, "min.insync.replicas", lowest=1),
        TopicConfig("retention.ms", ConfigType.LONG, "log.retention.ms", only="-1"),
    )
}
"""All there are, by name."""

LISTS = frozenset(config.name for config in TOPIC_CONFIGS.values() if config.kind == ConfigType.LIST)
"""Those whose values are lists, so can be appended to."""


def checked_config(config: Mapping[str, str | None]) -> dict[str, str]:
    """A topic's configuration, if all of it is understood. Raises InvalidConfigurationError that says what is not."""
    if missing := [name for name, value in config.items() if value is None]:
        raise InvalidConfigurationError(f"Null value not supported for topic configs: {','.join(missing)}")
    checked: dict[str, str] = {}
    for name, value in config.items():
        if name not in TOPIC_CONFIGS:
            raise InvalidConfigurationError(
                f"Unknown topic config name: {name}; the embedded cluster knows {', '.join(TOPIC_CONFIGS)}. "
                f"For another, run the test on real Kafka: KafkaCluster"
            )
        if not isinstance(value, str):
            raise InvalidConfigurationError(f"{name} is {value!r}; expected a string, as Kafka's tools take it")
        TOPIC_CONFIGS[name].check(value)
        checked[name] = value
    return checked
