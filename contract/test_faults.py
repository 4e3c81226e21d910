"""A broker that stands still, or cannot be reached."""

from __future__ import annotations

from kafka.errors import RequestTimedOutError

from contract.lab import Lab, until
from contract.records import batch, values
from contract.requests import LATEST, api_versions, fetch, list_offsets, of_partitions, produce
from pooledkafka.testing import Cluster


def test_a_paused_broker_answers_when_it_runs_again(lab: Lab, faults: Cluster) -> None:
    wire = lab.connect(2)
    faults.pause(2)
    number = wire.send(api_versions(), 3)
    late = lab.connect(2)  # its port is still open
    later = late.send(api_versions(), 3)
    assert wire.is_silent()
    assert late.is_silent(0)
    assert lab.broker(3).ask(api_versions(), 3).error_code == 0
    faults.resume(2)
    assert wire.answer(number).error_code == 0
    assert late.answer(later).error_code == 0


def test_a_broker_that_is_cut_off_from_clients_is_silent(lab: Lab, faults: Cluster) -> None:
    wire = lab.connect(2)
    faults.partition(2, from_="clients")
    wire.send(api_versions(), 3)
    assert wire.is_silent(0.5)
    assert lab.broker(3).ask(api_versions(), 3).error_code == 0
    faults.heal(2)
    assert lab.connect(2).ask(api_versions(), 3).error_code == 0


def test_what_a_follower_has_not_copied_is_neither_acknowledged_nor_read(lab: Lab, faults: Cluster) -> None:
    topic = lab.topic()
    leader = lab.leader(topic)
    follower = lab.other_than(leader)
    lab.write(topic, b"first")
    lab.wait_for_topic(topic)
    writer, reader, other = lab.connect(leader), lab.connect(leader), lab.connect(leader)
    faults.pause(follower)
    writing = writer.send(produce({(topic, 0): batch(b"second")}), 9)
    behind = writer.send(api_versions(), 3)
    reading = reader.send(fetch({(topic, 0): 1}, max_wait_ms=60_000), 11)
    assert writer.is_silent(0.5)
    assert reader.is_silent(0)
    part = of_partitions(other.ask(produce({(topic, 0): batch(b"third")}, acks=1), 9))[topic, 0]
    assert (part.error_code, part.base_offset) == (0, 2)
    part = of_partitions(other.ask(fetch({(topic, 0): 0}), 11))[topic, 0]
    assert (values(part), part.high_watermark) == ([b"first"], 1)
    part = of_partitions(other.ask(fetch({(topic, 0): 3}), 11))[topic, 0]
    assert (part.error_code, values(part), part.high_watermark) == (0, [], 1)
    part = of_partitions(other.ask(list_offsets({(topic, 0): LATEST}), 5))[topic, 0]
    assert part.offset == 1
    timed_out = of_partitions(other.ask(produce({(topic, 0): batch(b"fourth")}, timeout_ms=200), 9))[topic, 0]
    assert timed_out.error_code == RequestTimedOutError.errno  # it is written all the same
    faults.resume(follower)
    assert of_partitions(writer.answer(writing))[topic, 0].error_code == 0
    assert writer.answer(behind).error_code == 0
    assert values(of_partitions(reader.answer(reading))[topic, 0])[0] == b"second"
    part = until(lambda: lab.read(topic), lambda found: found.high_watermark == 4)
    assert values(part) == [b"first", b"second", b"third", b"fourth"]
