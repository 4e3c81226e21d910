from __future__ import annotations

from typing import Any

import pytest

from pooledkafka import ConfigurationError
from pooledkafka._run import RunOptions


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"retries": -1}, "retries must be a whole number, at least 0, but is -1"),
        ({"retries": 1.5}, "retries must be a whole number"),
        ({"retries": True}, "retries must be a whole number"),
        ({"max_records": 0}, "max_records must be a whole number, at least 1"),
        ({"stop_after": "10"}, "stop_after must be a whole number, at least 1, but is '10'"),
        ({"backoff_ms": -1}, "backoff_ms must be a number of milliseconds"),
        ({"backoff_max_ms": "1s"}, "backoff_max_ms must be a number of milliseconds, but is '1s'"),
        ({"batches": 10}, "batches must be True or False, not 10"),
        ({"until_end": None}, "until_end must be True or False"),
        ({"dead_letter_topic": ""}, "dead_letter_topic must be the name of a topic"),
        ({"dead_letter_topic": b"dead"}, "dead_letter_topic must be the name of a topic"),
        ({"error_limit": 5}, "no dead_letter_topic was given"),
        ({"error_limit": 0, "dead_letter_topic": "dead"}, "error_limit must be a whole number, at least 1"),
    ],
)
def test_what_cannot_work_is_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigurationError) as raised:
        RunOptions(**options)
    assert says in str(raised.value)
