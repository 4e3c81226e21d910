"""While a request is served, nothing behind it on its connection is; other connections do not wait."""

from __future__ import annotations

from contract.lab import Lab
from contract.records import values
from contract.requests import api_versions, fetch, heartbeat, join, of_partitions, sync
from contract.wire import Wire


def serves(wire: Wire) -> bool:
    return bool(wire.ask(api_versions(), 3).error_code == 0)


def test_a_parked_fetch_holds_back_what_is_behind_it(lab: Lab) -> None:
    topic = lab.topic()
    node_id = lab.leader(topic)
    wire, other = lab.connect(node_id), lab.connect(node_id)
    parked = wire.send(fetch({(topic, 0): 0}, max_wait_ms=60_000), 11)
    behind = wire.send(api_versions(), 3)
    assert serves(other)
    assert wire.is_silent()
    lab.write(topic, b"a")
    assert values(of_partitions(wire.answer(parked))[topic, 0]) == [b"a"]
    assert wire.answer(behind).error_code == 0


def test_fetches_of_one_connection_wait_one_after_the_other(lab: Lab) -> None:
    topic = lab.topic(partitions=2)
    other = lab.topic_led_by(lab.leader(topic))
    wire = lab.parked_at(topic)
    first = wire.send(fetch({(topic, 0): 0}, max_wait_ms=60_000), 11)
    second = wire.send(fetch({(other, 0): 0}, max_wait_ms=60_000), 11)
    lab.write(other, b"a")
    assert wire.is_silent()
    lab.write(topic, b"b")
    assert values(of_partitions(wire.answer(first))[topic, 0]) == [b"b"]
    assert values(of_partitions(wire.answer(second))[other, 0]) == [b"a"]


def test_many_connections_may_park(lab: Lab) -> None:
    topic = lab.topic()
    wires = [lab.parked_at(topic) for _ in range(30)]
    parked = [(wire, wire.send(fetch({(topic, 0): 0}, max_wait_ms=60_000), 11)) for wire in wires]
    lab.write(topic, b"a")
    for wire, number in parked:
        assert values(of_partitions(wire.answer(number))[topic, 0]) == [b"a"]


def test_a_parked_join_and_a_parked_sync_hold_back_what_is_behind_them(lab: Lab) -> None:
    group, node_id = lab.group()
    first, second, other = lab.connect(node_id), lab.connect(node_id), lab.connect(node_id)
    a = first.ask(join(group), 3)
    first.ask(sync(group, a.generation_id, a.member_id, {a.member_id: b"all"}), 3)

    joining = second.send(join(group), 3)
    behind = second.send(api_versions(), 3)
    assert serves(other)
    assert second.is_silent()
    a = first.ask(join(group, a.member_id), 3)
    b = second.answer(joining)
    assert second.answer(behind).error_code == 0
    assert (a.generation_id, a.leader) == (b.generation_id, b.leader)

    syncing = second.send(sync(group, b.generation_id, b.member_id), 3)
    behind = second.send(heartbeat(group, b.generation_id, b.member_id), 3)
    assert serves(other)
    assert second.is_silent()
    first.ask(sync(group, a.generation_id, a.member_id, {b.member_id: b"some"}), 3)
    assert second.answer(syncing).assignment == b"some"
    assert second.answer(behind).error_code == 0
