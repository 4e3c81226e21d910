from __future__ import annotations

from kafka.net.selector import NetworkSelector

from pooledkafka._wire.later import Later, call_later


def test_however_often_it_is_asked_for_there_is_one_timer_and_one_look() -> None:
    net, left = NetworkSelector(), [None, None]
    later = Later(net, 0.01, left.pop)
    for _ in range(100):
        later.ask()
    assert len(net._scheduled) == 1
    net.drain(scheduled=True)
    assert left == [None]
    later.ask()
    net.drain(scheduled=True)
    assert left == [], "and it may be asked for again"
    net.close()


def test_it_comes_again_while_there_is_something_left() -> None:
    net = NetworkSelector()
    left = [0.003, 0.002, 0.0, None]
    later = Later(net, 0.001, lambda: left.pop(0))
    later.ask()
    net.drain(scheduled=True)
    assert left == []
    net.close()


def test_nothing_is_asked_of_a_loop_that_has_ended() -> None:
    net = NetworkSelector()
    net.close()
    Later(net, 0.001, lambda: None).ask()


def test_a_loop_may_be_closed_while_a_step_of_its_thread_runs() -> None:
    net, told = NetworkSelector(), []
    net.close()  # from another thread: whoever runs had no way to know
    call_later(net, 0.001, lambda: told.append(1))
    assert not told
