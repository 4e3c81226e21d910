from __future__ import annotations

import gc
import os
import sys
import threading
from collections.abc import Iterator

import pytest

from pooledkafka._wire.collector import listed

OLD = sys.version_info < (3, 12)


@pytest.fixture(autouse=True)
def _enabled() -> Iterator[None]:
    assert gc.isenabled()
    yield
    assert gc.isenabled(), "nothing may leave it disabled"


def noting(found: list[bool]) -> Iterator[int]:
    found.append(gc.isenabled())
    yield 1


def test_the_collector_waits_until_all_is_made() -> None:
    found: list[bool] = []
    assert listed(noting(found)) == [1]
    assert found == [not OLD]
    assert gc.isenabled()


def test_the_collector_does_not_come_in_between() -> None:
    collections = 0

    def noticed(phase: str, _: object) -> None:
        nonlocal collections
        collections += phase == "start"

    gc.collect()
    gc.callbacks.append(noticed)
    try:
        made: list[list[int]] = listed(map(list, [()] * 100_000))
        during = collections
    finally:
        gc.callbacks.remove(noticed)
    assert len(made) == 100_000
    assert during <= 1, "at the end it may"


def test_where_making_fails_it_goes_on() -> None:
    with pytest.raises(ZeroDivisionError):
        listed(1 // number for number in (1, 0))
    assert gc.isenabled()


def test_where_the_application_has_disabled_it_that_stays() -> None:
    gc.disable()
    try:
        assert listed([1]) == [1]
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.skipif(not OLD, reason="nothing is disabled")
def test_a_child_that_is_forked_meanwhile_has_it_enabled() -> None:
    begun, forked = threading.Event(), threading.Event()

    def waiting() -> Iterator[int]:
        begun.set()
        assert forked.wait(10)
        yield 1

    thread = threading.Thread(target=lambda: listed(waiting()))
    thread.start()
    assert begun.wait(10)
    assert not gc.isenabled()
    child = os.fork()
    if not child:
        os._exit(0 if gc.isenabled() else 1)
    forked.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
