"""What is done when a database transaction commits."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from django.db import connections, transaction

__all__ = ["AtCommit", "at_commit", "pending", "settle"]


class AtCommit:
    """A callback of ``transaction.on_commit`` that does its work once, whoever calls it."""

    def __init__(self, action: Callable[[], Any], what: str) -> None:
        self._action: Callable[[], Any] | None = action  # taken out when it is done, by the transaction's thread
        self.__qualname__ = what  # by which Django names it when it fails

    def __call__(self) -> None:
        action, self._action = self._action, None
        if action is not None:
            action()


def at_commit(action: Callable[[], Any], what: str, using: str | None, robust: bool) -> None:
    """Do ``action`` when the current transaction of database ``using`` commits, at once where there is none."""
    transaction.on_commit(AtCommit(action, what), using=using, robust=robust)


def pending() -> list[AtCommit]:
    """What waits for a commit on this thread."""
    return [
        callback
        for connection in connections.all(initialized_only=True)
        for _, callback, *_ in connection.run_on_commit
        if isinstance(callback, AtCommit)
    ]


def settle(but: Collection[AtCommit] = ()) -> None:
    """Do what would have been done by now if the transactions that a TestCase wraps around a test were not there.

    Such a transaction never commits, so its callbacks wait in vain. They are done where nothing but the test's own
    blocks is open; within an ``atomic()`` of the code under test they still wait, and what was rolled back is gone.

    Args:
        but: what is left alone.
    """
    for connection in connections.all(initialized_only=True):
        blocks: list[Any] = connection.atomic_blocks
        if blocks and all(block._from_testcase for block in blocks):
            for _, callback, *_ in list(connection.run_on_commit):
                if isinstance(callback, AtCommit) and callback not in but:
                    callback()
