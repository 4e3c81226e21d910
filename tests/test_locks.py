"""The order of the locks, as it is checked in debug mode."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest

from pooledkafka._locks import LockName, check_free, new_lock, new_rlock, violations


@pytest.fixture(autouse=True)
def _expected() -> Iterator[None]:
    yield
    violations.clear()


def test_locks_in_their_order_may_be_taken_together() -> None:
    with new_rlock(LockName.LIFE), new_lock(LockName.OPENING), new_lock(LockName.POOL), new_lock(LockName.FEED):
        pass
    assert violations == []


def test_a_lock_out_of_order_names_both_and_where_the_other_was_taken() -> None:
    with new_lock(LockName.POOL), pytest.raises(AssertionError) as refused:
        new_lock(LockName.OPENING).acquire()
    message = str(refused.value)
    assert "_opening is taken while holding ConnectionPool._lock (taken at " in message
    assert f"{__file__}:" in message
    assert test_a_lock_out_of_order_names_both_and_where_the_other_was_taken.__name__ in message
    assert violations == [message]


def test_two_locks_at_the_same_place_are_refused() -> None:
    with new_lock(LockName.VIEWS), pytest.raises(AssertionError, match=r"SharedCluster._lock is taken while holding"):
        new_lock(LockName.CLUSTER).acquire()


def test_what_was_refused_is_not_held_and_what_was_released_neither() -> None:
    pool, opening = new_lock(LockName.POOL), new_lock(LockName.OPENING)
    with pool, pytest.raises(AssertionError):
        opening.acquire()
    with opening, pool:
        pass
    assert not opening.locked()


def test_only_a_reentrant_lock_may_be_taken_again() -> None:
    with (life := new_rlock(LockName.LIFE)), life:
        pass
    with (lock := new_lock(LockName.POOL)), pytest.raises(AssertionError, match="taken twice by one thread"):
        lock.acquire()


def test_trying_without_waiting_is_never_refused() -> None:
    lock, earlier = new_lock(LockName.POOL), new_lock(LockName.OPENING)
    with lock:
        assert not lock.acquire(blocking=False)
        assert earlier.acquire(blocking=False)
        earlier.release()


def test_a_wait_with_a_timeout_ends_with_it() -> None:
    life, taken, over = new_rlock(LockName.LIFE), threading.Event(), threading.Event()

    def hold() -> None:
        with life:
            taken.set()
            assert over.wait(5)

    holder = threading.Thread(target=hold)
    holder.start()
    assert taken.wait(5)
    assert not life.acquire(timeout=0.01)
    over.set()
    assert life.acquire(timeout=5)
    life.release()
    holder.join()


def test_a_consumers_mark_of_use_is_only_tried() -> None:
    with new_rlock(LockName.LIFE):  # disconnect() ends a consumer that may be in use
        use = new_lock(LockName.USE)
        assert use.acquire(timeout=0.01)
        use.release()
    with pytest.raises(AssertionError, match=r"Consumer._use is waited for blindly"):
        use.acquire()


def test_a_condition_waits_and_is_woken() -> None:
    changed, told = threading.Condition(new_lock(LockName.FEED)), []

    def tell() -> None:
        with changed:
            told.append(True)
            changed.notify()

    teller = threading.Thread(target=tell)
    with changed:
        teller.start()
        while not told:
            assert changed.wait(5)
        with pytest.raises(AssertionError, match="taken twice by one thread"):
            changed.acquire()
    teller.join()


def test_waiting_on_a_condition_under_another_lock_is_refused() -> None:
    changed = threading.Condition(new_lock(LockName.FEED))
    with (
        new_lock(LockName.POOL),
        changed,
        pytest.raises(AssertionError, match=r"waiting on Feed._lock while holding"),
    ):
        changed.wait(0.01)


def test_a_wait_for_the_io_thread_or_a_callback_under_a_lock_is_refused() -> None:
    with new_lock(LockName.POOL), pytest.raises(AssertionError, match="calling a handler while holding Connection"):
        check_free("calling a handler")
    with new_rlock(LockName.LIFE), new_lock(LockName.STOP):
        check_free("waiting for the I/O thread")


def test_a_forked_process_holds_nothing() -> None:
    with new_lock(LockName.FEED):
        pid = os.fork()
        if not pid:
            try:
                check_free("calling a handler")
                new_rlock(LockName.LIFE).acquire()
            except BaseException:
                os._exit(1)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0


def test_without_debug_mode_they_are_plain_locks() -> None:
    script = """
import threading
from pooledkafka import _locks
assert type(_locks.new_lock(_locks.LockName.POOL)) is type(threading.Lock())
assert type(_locks.new_rlock(_locks.LockName.LIFE)) is type(threading.RLock())
with _locks.new_lock(_locks.LockName.FEED):
    _locks.check_free("calling a handler")
"""
    environment = {**os.environ, "POOLEDKAFKA_DEBUG": "0"}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True, timeout=60)
