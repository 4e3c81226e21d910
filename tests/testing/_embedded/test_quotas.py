"""Client quotas: how they are counted, what clients are told, and that their connections are not read meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from kafka import KafkaProducer
from kafka.errors import InvalidRequestError, UnsupportedVersionError
from kafka.protocol.admin import AlterClientQuotasRequest, DescribeClientQuotasRequest
from kafka.protocol.metadata import ApiVersionsRequest

from pooledkafka.testing import EmbeddedKafka, Error
from pooledkafka.testing._embedded.quotas import Quotas
from tests.testing._embedded.wire import Wire, fetch, fetched, produce


@pytest.fixture
def cluster() -> Iterator[EmbeddedKafka]:
    with EmbeddedKafka(brokers=1) as cluster:
        cluster.create_topic("t")
        yield cluster


@pytest.fixture
def wire(cluster: EmbeddedKafka) -> Iterator[Wire]:
    with Wire(cluster.address_of(1), client_id="fast") as wire:
        yield wire


# -- counting ----------------------------------------------------------------------------------------------------------


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_ten_seconds_worth_may_be_sent_at_once_and_more_is_paid_for_with_time(clock: Clock) -> None:
    quotas = Quotas(clock)
    quotas.set("producer_byte_rate", 100.0)
    assert quotas.sent_ms("a", 1_000) == 0
    assert quotas.sent_ms("a", 50) == 500
    assert quotas.sent_ms("b", 1_000) == 0, "each client has its own"
    clock.now += 0.5
    assert quotas.sent_ms("a", 1) == 10
    clock.now += 1_000
    assert quotas.sent_ms("a", 1_000) == 0, "no more than ten seconds' worth is saved"
    assert quotas.sent_ms("a", 1) == 10


def test_what_a_client_is_not_sent_is_not_counted(clock: Clock) -> None:
    quotas = Quotas(clock)
    quotas.set("consumer_byte_rate", 100.0)
    assert quotas.read_ms("a", 600) == 0
    assert [quotas.read_ms("a", 600) for _ in range(2)] == [2_000, 2_000]
    clock.now += 2
    assert quotas.read_ms("a", 600) == 0
    clock.now += 1_000
    assert quotas.read_ms("a", 5_000) == 0, "one large batch gets through in the end"
    assert quotas.read_ms("a", 1) == 40_010


def test_a_clients_own_quota_goes_before_the_default(clock: Clock) -> None:
    quotas = Quotas(clock)
    quotas.set("producer_byte_rate", 1.0)
    quotas.set("producer_byte_rate", 1_000.0, "a")
    assert quotas.sent_ms("a", 100) == 0
    assert quotas.sent_ms("b", 100) == 90_000
    assert quotas.read_ms("b", 100) == 0, "the other way is not limited"
    quotas.set("producer_byte_rate", None)
    assert quotas.sent_ms("b", 10**9) == 0
    assert (quotas.most_to_read("a"), quotas.most_to_read(None)) == (2**31 - 1, 2**31 - 1)
    quotas.set("consumer_byte_rate", 5.0, "a")
    assert (quotas.most_to_read("a"), quotas.most_to_read("b")) == (50, 2**31 - 1)


def test_a_higher_quota_ends_a_long_wait(clock: Clock) -> None:
    quotas = Quotas(clock)
    quotas.set("producer_byte_rate", 1.0)
    assert quotas.sent_ms("a", 1_000) == 990_000
    quotas.set("producer_byte_rate", 1_000.0)
    assert quotas.sent_ms("a", 1_000) == 0


# -- what clients see --------------------------------------------------------------------------------------------------


def seconds_between_answers(cluster: EmbeddedKafka, client_id: str) -> float:
    """How long after the answer to its last but one request a client's last one was answered."""
    (record,) = [each for each in cluster.connections if client_id in each.client_ids]
    before, last = (exchange.answered_at for exchange in list(record.exchanges)[-2:])
    assert before is not None
    assert last is not None
    return last - before


def test_a_producer_is_answered_at_once_and_its_connection_not_read(cluster: EmbeddedKafka, wire: Wire) -> None:
    cluster.set_quota("producer_byte_rate", 1_000)
    wire.send(produce("t", b"x" * 10_100), 9)
    wire.send(ApiVersionsRequest(), 0)
    _, produced = wire.receive()
    assert produced.responses[0].partition_responses[0].error_code == 0
    assert 0 < produced.throttle_time_ms < 400  # 100 bytes too many, and those around the record
    wire.receive()
    assert seconds_between_answers(cluster, "fast") >= produced.throttle_time_ms / 1000


def test_only_the_connection_that_was_too_fast_is_muted(cluster: EmbeddedKafka, wire: Wire) -> None:
    cluster.set_quota("producer_byte_rate", 10, "fast")
    wire.send(produce("t", b"x" * 10_000), 9)
    wire.send(ApiVersionsRequest(), 0)
    assert wire.receive()[1].throttle_time_ms > 100_000
    with Wire(cluster.address_of(1), client_id="other") as other:
        assert other.ask(produce("t", b"x" * 10_000), 9).throttle_time_ms == 0
        assert other.ask(ApiVersionsRequest(), 0).error_code == 0
    (record,) = [each for each in cluster.connections if "fast" in each.client_ids]
    assert list(record.exchanges)[-1].answered_at is None
    started = time.monotonic()
    cluster.close()
    assert time.monotonic() - started < 2
    assert wire.has_ended()


def test_a_producer_that_wants_no_answer_is_muted_too(cluster: EmbeddedKafka, wire: Wire) -> None:
    cluster.set_quota("producer_byte_rate", 1_000)
    wire.send(produce("t", b"x" * 10_100, acks=0), 9)
    wire.send(ApiVersionsRequest(), 0)
    assert wire.receive()[1].error_code == 0
    assert seconds_between_answers(cluster, "fast") >= 0.1


def filled(cluster: EmbeddedKafka, *sizes: int) -> None:
    with Wire(cluster.address_of(1), client_id="filler") as wire:
        for size in sizes:
            wire.ask(produce("t", b"x" * size), 9)


def test_a_consumer_that_is_held_back_is_sent_nothing(cluster: EmbeddedKafka, wire: Wire) -> None:
    filled(cluster, 9_600, 9_000)
    cluster.set_quota("consumer_byte_rate", 1_000)
    first = wire.ask(fetch("t"), 11)
    assert [len(value) for value in fetched(first)] == [9_600], "not more than ten seconds' worth"
    assert first.throttle_time_ms == 0
    held = wire.ask(fetch("t", 1), 11)
    assert (held.responses, held.error_code, held.session_id) == ([], 0, 0)
    assert 0 < held.throttle_time_ms < 10_000


def test_a_consumer_is_sent_it_when_its_time_is_up(cluster: EmbeddedKafka, wire: Wire) -> None:
    filled(cluster, 9_600, 500)
    cluster.set_quota("consumer_byte_rate", 1_000)
    offset = 0
    while offset < 2:  # a slow machine may find its time up before it asks
        answered = wire.ask(fetch("t", offset), 11)
        found = fetched(answered)
        assert bool(found) == (answered.throttle_time_ms == 0)
        offset += len(found)


def test_sessions_outlive_an_answer_with_nothing_and_none_begins_with_it() -> None:
    config = {"max.incremental.fetch.session.cache.slots": "1"}
    with EmbeddedKafka(brokers=1, config=config) as cluster:
        cluster.create_topic("t")
        filled(cluster, 9_600, 9_000)

        def asked(offset: int, **session: int) -> Any:
            """Each on a connection of its own, since those of the fast are not read."""
            with Wire(cluster.address_of(1), client_id="fast") as wire:
                return wire.ask(fetch("t", offset, **session), 11)

        session_id = asked(0, session_epoch=0).session_id
        cluster.set_quota("consumer_byte_rate", 1_000)
        assert len(fetched(asked(0))) == 1
        held = asked(1, session_epoch=0)
        assert (held.throttle_time_ms > 0, held.session_id, held.responses) == (True, 0, [])
        held = asked(1, session_id=session_id, session_epoch=1)
        assert (held.throttle_time_ms > 0, held.session_id, held.responses) == (True, session_id, [])
        cluster.set_quota("consumer_byte_rate", None)
        went_on = asked(1, session_id=session_id, session_epoch=2)
        assert (went_on.error_code, [len(value) for value in fetched(went_on)]) == (0, [9_000])


def test_kafka_python_obeys(cluster: EmbeddedKafka) -> None:
    cluster.set_quota("producer_byte_rate", 10_000, "py")
    producer = KafkaProducer(**cluster.client_options(), client_id="py", linger_ms=0)
    for _ in range(3):
        producer.send("t", b"x" * 34_000).get(timeout=20)
    producer.close()
    with Wire(cluster.address_of(1), client_id="reader") as wire:
        assert len(fetched(wire.ask(fetch("t"), 11))) == 3


# -- AlterClientQuotas and DescribeClientQuotas ------------------------------------------------------------------------


_Entry = AlterClientQuotasRequest.EntryData
_Component = DescribeClientQuotasRequest.ComponentData


def alter(wire: Wire, entity: dict[str, str | None], *ops: tuple[str, float, bool], **options: Any) -> Any:
    entry = _Entry(
        entity=[_Entry.EntityData(entity_type=kind, entity_name=name) for kind, name in entity.items()],
        ops=[_Entry.OpData(key=key, value=value, remove=remove) for key, value, remove in ops],
    )
    request = AlterClientQuotasRequest(entries=[entry], validate_only=options.get("validate_only", False))
    (answered,) = wire.ask(request, options.get("version", 1)).entries
    assert {part.entity_type: part.entity_name for part in answered.entity} == entity
    return answered.error_code, answered.error_message


def describe(
    wire: Wire, *components: tuple[str, int, str | None], strict: bool = False, version: int = 1
) -> dict[str | None, dict[str, float]]:
    asked = [_Component(entity_type=kind, match_type=how, match=match) for kind, how, match in components]
    answered = wire.ask(DescribeClientQuotasRequest(components=asked, strict=strict), version)
    if answered.error_code:
        raise LookupError(answered.error_code, answered.error_message)
    quotas = {}
    for entry in answered.entries:
        assert [part.entity_type for part in entry.entity] == ["client-id"]
        quotas[entry.entity[0].entity_name] = {value.key: value.value for value in entry.values}
    return quotas


EXACT, DEFAULT, ANY = 0, 1, 2


@pytest.mark.parametrize("version", [0, 1])
def test_quotas_are_set_shown_and_taken_back(cluster: EmbeddedKafka, wire: Wire, version: int) -> None:
    both = [("producer_byte_rate", 10.0, False), ("consumer_byte_rate", 20.0, False)]
    assert alter(wire, {"client-id": "fast"}, *both, version=version, validate_only=True) == (0, None)
    assert describe(wire, version=version) == {}
    assert alter(wire, {"client-id": "fast"}, *both, version=version) == (0, None)
    assert alter(wire, {"client-id": None}, both[0], version=version) == (0, None)
    fast, default = {"producer_byte_rate": 10.0, "consumer_byte_rate": 20.0}, {"producer_byte_rate": 10.0}
    assert describe(wire, version=version) == {"fast": fast, None: default}
    assert describe(wire, ("client-id", ANY, None), version=version) == {"fast": fast, None: default}
    assert describe(wire, ("client-id", EXACT, "fast"), strict=True, version=version) == {"fast": fast}
    assert describe(wire, ("client-id", DEFAULT, None), version=version) == {None: default}
    assert describe(wire, ("client-id", EXACT, "slow"), version=version) == {}
    assert describe(wire, ("user", ANY, None), version=version) == {}
    assert describe(wire, strict=True, version=version) == {}
    with Wire(cluster.address_of(1), client_id="fast") as limited:
        assert limited.ask(produce("t", b"x" * 1_000), 9).throttle_time_ms > 0
    removed = ("producer_byte_rate", 0.0, True)
    for client_id in (None, "fast"):
        assert alter(wire, {"client-id": client_id}, removed, version=version) == (0, None)
    assert describe(wire, version=version) == {"fast": {"consumer_byte_rate": 20.0}}


@pytest.mark.parametrize(
    ("entity", "op", "said"),
    [
        ({"client-id": "c"}, ("request_percentage", 10.0, False), "Invalid configuration key request_percentage"),
        ({"client-id": "c"}, ("producer_byte_rate", 0.0, False), "is 0.0; expected a whole number above 0"),
        ({"client-id": "c"}, ("producer_byte_rate", 1.5, False), "is 1.5; expected a whole number above 0"),
        ({"client-id": "c"}, ("producer_byte_rate", float("nan"), False), "is nan; expected a whole number"),
        ({"client-id": "c"}, ("producer_byte_rate", float("inf"), False), "is inf; expected a whole number"),
        ({"client-id": ""}, ("producer_byte_rate", 1.0, False), "Empty name"),
        ({"user": "u"}, ("producer_byte_rate", 1.0, False), "has quotas for client-id alone, none for user"),
        ({"client-id": "c", "user": None}, ("producer_byte_rate", 1.0, False), "none for client-id and user"),
        ({"planet": "x"}, ("producer_byte_rate", 1.0, False), "Unhandled client quota entity type: planet"),
        ({}, ("producer_byte_rate", 1.0, False), "Invalid empty client quota entity"),
    ],
)
def test_quotas_that_are_not_kept_are_refused(
    wire: Wire, entity: dict[str, str | None], op: tuple[str, float, bool], said: str
) -> None:
    code, message = alter(wire, entity, ("consumer_byte_rate", 5.0, False), op)
    assert code == InvalidRequestError.errno
    assert said in message
    assert describe(wire) == {}


@pytest.mark.parametrize(
    ("components", "error", "said"),
    [
        ([("planet", ANY, None)], UnsupportedVersionError, "Unsupported entity type: planet"),
        ([("", ANY, None)], InvalidRequestError, "Invalid empty entity type"),
        ([("user", ANY, None), ("user", EXACT, "u")], InvalidRequestError, "user cannot appear more than once"),
        ([("user", 3, None)], InvalidRequestError, "Unknown match type 3"),
        ([("user", EXACT, None)], InvalidRequestError, "match type 0, but set match string to null"),
        ([("user", ANY, "u")], InvalidRequestError, "match type 2, but also specified a match string"),
        ([("user", ANY, None), ("ip", ANY, None)], InvalidRequestError, "IP filter component should not be used"),
    ],
)
def test_filters_that_cannot_be_are_refused(
    wire: Wire, components: list[tuple[str, int, str | None]], error: Any, said: str
) -> None:
    with pytest.raises(LookupError) as caught:
        describe(wire, *components)
    assert caught.value.args[0] == error.errno
    assert said in caught.value.args[1]


def test_a_fault_refuses_all_that_was_asked(cluster: EmbeddedKafka, wire: Wire) -> None:
    with cluster.intercept(action=Error(InvalidRequestError)):
        assert alter(wire, {"client-id": "c"}, ("producer_byte_rate", 1.0, False))[0] == InvalidRequestError.errno
        with pytest.raises(LookupError):
            describe(wire)
    assert describe(wire) == {}
