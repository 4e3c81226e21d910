from __future__ import annotations

import threading
from typing import Any

import pytest

from pooledkafka._wire.mailbox import Mailbox


class Staged(threading.Condition):
    """Says when somebody is about to wait, while the lock is still held."""

    def __init__(self, lock: Any) -> None:
        super().__init__(lock)
        self.about_to_wait = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        self.about_to_wait.set()
        return super().wait(timeout)


def waiting(mailbox: Mailbox) -> threading.Thread:
    """A thread that waits in ``run_pending`` without a limit, seen to have got there."""
    staged = Staged(mailbox._lock)
    mailbox._changed = staged
    thread = threading.Thread(target=mailbox.run_pending, args=(None,), daemon=True)
    thread.start()
    assert staged.about_to_wait.wait(5)
    return thread


def test_callbacks_run_in_order_on_the_thread_that_waits() -> None:
    mailbox, ran = Mailbox(), []
    for number in range(3):
        mailbox.put(lambda number=number: ran.append((number, threading.get_ident())))  # type: ignore[misc]
    mailbox.run_pending(0)
    assert ran == [(number, threading.get_ident()) for number in range(3)]
    mailbox.run_pending(0)
    assert len(ran) == 3, "each runs once"


def test_what_is_behind_one_that_raises_comes_next_time() -> None:
    mailbox, ran = Mailbox(), []
    for number in range(3):
        mailbox.put(lambda number=number: ran.append(6 / number))  # type: ignore[misc]
    with pytest.raises(ZeroDivisionError):
        mailbox.run_pending(0)
    assert ran == []
    mailbox.run_pending(0)
    assert ran == [6, 3]


@pytest.mark.parametrize("how", ["put", "wakeup"])
def test_a_wait_is_ended_from_another_thread(how: str) -> None:
    mailbox, ran = Mailbox(), threading.Event()
    thread = waiting(mailbox)
    mailbox.put(ran.set) if how == "put" else mailbox.wakeup()
    thread.join(5)
    assert not thread.is_alive()
    assert ran.is_set() == (how == "put")


@pytest.mark.parametrize("how", ["put", "wakeup"])
def test_what_comes_before_the_wait_ends_it_at_once(how: str) -> None:
    mailbox = Mailbox()
    mailbox.put(lambda: None) if how == "put" else mailbox.wakeup()
    done = threading.Thread(target=mailbox.run_pending, args=(None,), daemon=True)
    done.start()
    done.join(5)
    assert not done.is_alive(), "the wakeup was lost"


def test_a_wakeup_between_looking_and_waiting_is_not_lost() -> None:
    mailbox = Mailbox()
    intruder = threading.Thread(target=mailbox.wakeup, daemon=True)

    class Between(Staged):
        def wait(self, timeout: float | None = None) -> bool:
            if not self.about_to_wait.is_set():
                self.about_to_wait.set()
                intruder.start()  # it finds the lock held, until the wait gives it up
            return super().wait(timeout)

    mailbox._changed = Between(mailbox._lock)
    waiter = threading.Thread(target=mailbox.run_pending, args=(None,), daemon=True)
    waiter.start()
    waiter.join(5)
    assert not waiter.is_alive()
    intruder.join(5)


def test_a_wakeup_ends_one_wait_only() -> None:
    mailbox = Mailbox()
    mailbox.wakeup()
    mailbox.wakeup()
    mailbox.run_pending(None)
    thread = waiting(mailbox)  # would not wait if a wakeup were left
    mailbox.wakeup()
    thread.join(5)
    assert not thread.is_alive()


def test_callbacks_run_without_the_lock() -> None:
    mailbox = Mailbox()

    def fill_from_elsewhere() -> None:
        other = threading.Thread(target=mailbox.put, args=(lambda: None,), daemon=True)
        other.start()
        other.join(5)
        blocked.append(other.is_alive())

    blocked: list[bool] = []
    mailbox.put(fill_from_elsewhere)
    mailbox.run_pending(0)
    assert blocked == [False]


def test_what_a_callback_puts_is_for_the_next_round() -> None:
    mailbox, ran = Mailbox(), []

    def again() -> None:
        ran.append("first")
        mailbox.put(lambda: ran.append("second"))

    mailbox.put(again)
    mailbox.run_pending(0)
    assert ran == ["first"]
    mailbox.run_pending(None)
    assert ran == ["first", "second"]


@pytest.mark.parametrize("timeout_s", [0.0, -1.0])
def test_a_wait_without_time_returns(timeout_s: float) -> None:
    Mailbox().run_pending(timeout_s)


def test_a_wait_for_ever_is_no_overflow() -> None:
    mailbox = Mailbox()
    limits: list[Any] = []

    class Looking(threading.Condition):
        def wait(self, timeout: float | None = None) -> bool:
            limits.append(timeout)
            mailbox._woken = True
            return True

    mailbox._changed = Looking(mailbox._lock)
    mailbox.run_pending(float("inf"))
    assert 0 < limits[0] < threading.TIMEOUT_MAX
