from __future__ import annotations

import signal
import threading
from types import FrameType

from pooledkafka._wire.flag import Flag


def test_it_is_set_until_it_is_cleared() -> None:
    flag = Flag()
    assert not flag.is_set()
    assert not flag.wait(0.0)
    assert not flag.wait(-1.0)
    flag.set()
    flag.set()
    assert flag.is_set()
    assert flag.wait(600)
    assert flag.wait(600)
    flag.clear()
    assert not flag.is_set()
    assert not flag.wait(0.0)


def test_it_ends_a_wait_in_another_thread() -> None:
    flag, waits = Flag(), threading.Event()
    seen: list[bool] = []

    def wait() -> None:
        waits.set()
        seen.append(flag.wait(600))

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    assert waits.wait(5)
    flag.set()
    thread.join(5)
    assert seen == [True]


def test_no_set_of_other_threads_is_lost() -> None:
    flag, rounds = Flag(), 5_000
    done = [threading.Semaphore(0) for _ in range(2)]
    asked = [0, 0]

    def ask(who: int) -> None:
        for number in range(rounds):
            asked[who] = number + 1
            flag.set()
            assert done[who].acquire(timeout=30), "the set was lost"

    threads = [threading.Thread(target=ask, args=(who,), daemon=True) for who in range(2)]
    for thread in threads:
        thread.start()
    seen = [0, 0]
    while seen != [rounds, rounds]:
        flag.wait(30)
        flag.clear()
        for who in range(2):
            if asked[who] != seen[who]:
                seen[who] = asked[who]
                done[who].release()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()


def test_a_signal_handler_may_set_it_whatever_it_interrupts() -> None:
    flag, calls = Flag(), []

    def handler(number: int, frame: FrameType | None) -> None:
        calls.append(number)
        flag.set()

    before = signal.signal(signal.SIGPROF, handler)
    signal.setitimer(signal.ITIMER_PROF, 0.0002, 0.0002)
    try:
        while len(calls) < 300:
            flag.wait(0.0)
            flag.clear()
            flag.set()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, before)
