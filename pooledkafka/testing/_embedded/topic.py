"""A topic: its id, its configuration and its partitions."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field

from .partition import Partition

__all__ = ["Topic", "is_legal_name"]


@dataclass
class Topic:
    """What CreateTopics made."""

    name: str
    partitions: list[Partition]
    config: dict[str, str] = field(default_factory=dict)
    topic_id: uuid.UUID = field(default_factory=uuid.uuid4)

    def setting(self, name: str, default: int) -> int:
        """A numeric configuration of the topic, or what the brokers say."""
        return int(self.config.get(name, default))


def is_legal_name(name: str) -> bool:
    """Whether Kafka would take this for a topic's name."""
    return bool(re.fullmatch(r"[a-zA-Z0-9._-]{1,249}", name)) and name not in (".", "..")


def merged(config: Mapping[str, str | None], changes: Mapping[str, str | None]) -> dict[str, str]:
    """A configuration with changes in it; None takes one back."""
    return {name: value for name, value in {**config, **changes}.items() if value is not None}
