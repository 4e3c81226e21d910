from __future__ import annotations

from kafka.net.selector import NetworkSelector

from pooledkafka._wire.later import Later


def test_however_often_it_is_asked_for_there_is_one_timer_and_one_look() -> None:
    net, left = NetworkSelector(), [False, False]
    later = Later(net, 0.01, left.pop)
    for _ in range(100):
        later.ask()
    assert len(net._scheduled) == 1
    net.drain(scheduled=True)
    assert left == [False]
    later.ask()
    net.drain(scheduled=True)
    assert left == [], "and it may be asked for again"
    net.close()


def test_it_comes_again_while_there_is_something_left() -> None:
    net, left = NetworkSelector(), [3, 2, 1, 0]
    later = Later(net, 0.001, lambda: bool(left.pop(0)))
    later.ask()
    net.drain(scheduled=True)
    assert left == []
    net.close()


def test_nothing_is_asked_of_a_loop_that_has_ended() -> None:
    net = NetworkSelector()
    net.close()
    Later(net, 0.001, lambda: True).ask()
