"""When a consumer's keys and values are deserialized."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Deserializing"]


class Deserializing:
    """A consumer's deserializers; for its polling thread.

    Records are taken as they were written while it is put off: who calls a handler with them can then still say which
    one could not be read, and pass that on unchanged.
    """

    def __init__(self, key: Any, value: Any) -> None:
        self._key = key
        self._value = value
        self.is_put_off = False

    @contextmanager
    def put_off(self) -> Iterator[None]:
        before, self.is_put_off = self.is_put_off, True
        try:
            yield
        finally:
            self.is_put_off = before

    def record(self, record: Any) -> Any:
        """A record as its consumer's user wants it."""
        if self._key is None and self._value is None:
            return record
        topic, headers = record.topic, record.headers
        key = record.key if self._key is None else self._key.deserialize(topic, headers, record.key)
        value = record.value if self._value is None else self._value.deserialize(topic, headers, record.value)
        return record._replace(key=key, value=value)
