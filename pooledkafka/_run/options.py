"""How a consumer is run."""

from __future__ import annotations

from dataclasses import dataclass, fields

from pooledkafka.errors import ConfigurationError

__all__ = ["RunOptions"]


@dataclass(frozen=True)
class RunOptions:
    """What ``Consumer.run`` was asked for; its docstring says what each means.

    Raises:
        ConfigurationError: one of them cannot work.
    """

    max_records: int | None = None
    batches: bool = False
    retries: int = 0
    backoff_ms: float = 100
    backoff_max_ms: float = 10_000
    dead_letter_topic: str | None = None
    error_limit: int | None = None
    stop_after: int | None = None
    until_end: bool = False
    handle_signals: bool = False
    progress: bool = False

    def __post_init__(self) -> None:
        for name, least in (("max_records", 1), ("retries", 0), ("error_limit", 1), ("stop_after", 1)):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < least):
                raise ConfigurationError(f"{name} must be a whole number, at least {least}, but is {value!r}")
        for name in ("backoff_ms", "backoff_max_ms"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
                raise ConfigurationError(f"{name} must be a number of milliseconds, but is {value!r}")
        for field in fields(self):
            if field.type == "bool" and not isinstance(getattr(self, field.name), bool):
                raise ConfigurationError(f"{field.name} must be True or False, not {getattr(self, field.name)!r}")
        topic = self.dead_letter_topic
        if topic is not None and (not isinstance(topic, str) or not topic):
            raise ConfigurationError(f"dead_letter_topic must be the name of a topic, not {topic!r}")
        if self.error_limit is not None and topic is None:
            raise ConfigurationError(
                "error_limit counts the records that went to a dead-letter topic, and no dead_letter_topic was given: "
                "without one the first record that cannot be handled ends the run, since skipping it would lose it"
            )
