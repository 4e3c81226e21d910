"""Client quotas: who is too fast is answered, told so, and not read for that time (KIP-219)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from contract.lab import Lab, until
from contract.records import batch, values
from contract.requests import api_versions, fetch, limit, of_partitions, produce

QUOTA = 20_000


@pytest.fixture
def client_id(lab: Lab) -> Iterator[str]:
    """Of a client that may send few bytes a second."""
    client_id = lab.name("client-")
    response = lab.any.ask(limit(client_id, QUOTA), 1)
    assert [entry.error_code for entry in response.entries] == [0]
    yield client_id
    lab.any.ask(limit(client_id, None), 1)


def test_who_is_too_fast_is_told_so_and_not_read_for_a_time(lab: Lab, client_id: str) -> None:
    topic = lab.topic_led_by(1)
    request = produce({(topic, 0): batch(b"x" * 200_000)})
    wire, other = lab.connect(1, client_id), lab.connect(1, client_id + "-other")
    # The broker must hear of the quota first, and what it lets through in advance must be used.
    until(lambda: wire.ask(request, 9).throttle_time_ms, lambda throttled_ms: throttled_ms > 800)
    wire.send(api_versions(), 3)
    assert wire.is_silent()
    assert other.ask(request, 9).throttle_time_ms == 0
    assert other.ask(api_versions(), 3).error_code == 0


def test_who_reads_too_fast_is_sent_nothing_for_a_time(lab: Lab) -> None:
    client_id, topic = lab.name("client-"), lab.topic_led_by(1)
    lab.write(topic, b"x" * 100_000)
    assert lab.any.ask(limit(client_id, QUOTA, "consumer_byte_rate"), 1).entries[0].error_code == 0
    wire = lab.connect(1, client_id)
    response = until(lambda: wire.ask(fetch({(topic, 0): 0}), 11), lambda answer: answer.throttle_time_ms > 0)
    assert (response.error_code, of_partitions(response)) == (0, {})
    assert values(of_partitions(lab.connect(1).ask(fetch({(topic, 0): 0}), 11))[topic, 0]) == [b"x" * 100_000]
    lab.any.ask(limit(client_id, None, "consumer_byte_rate"), 1)


def test_a_quota_of_something_unknown_is_refused(lab: Lab) -> None:
    request = limit(lab.name(), QUOTA)
    request.entries[0].ops[0].key = "no_such_rate"
    response = lab.any.ask(request, 1)
    assert response.entries[0].error_code != 0
