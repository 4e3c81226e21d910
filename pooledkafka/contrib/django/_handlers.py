"""Functions that handle the records of topics, and where they are found."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from django.utils.module_loading import autodiscover_modules

from pooledkafka.contrib.django._exactly_once import exactly_once
from pooledkafka.contrib.django._hygiene import with_fresh_connections
from pooledkafka.errors import ConfigurationError

__all__ = ["Handler", "discovered", "kafka_handler", "selected"]

_Function = TypeVar("_Function", bound=Callable[[Any], Any])


@dataclass(frozen=True)
class Handler:
    """A function with what it is called for."""

    name: str
    function: Callable[[Any], Any]
    topics: tuple[str, ...]
    group_id: str
    alias: str = "default"
    batches: bool = False
    exactly_once_in: str | None = None
    run_options: dict[str, Any] = field(default_factory=dict)
    """What ``Consumer.run`` is called with."""
    consumer_options: dict[str, Any] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """Where the function is."""
        return f"{self.function.__module__}.{self.function.__qualname__}"

    def handle(self) -> Callable[[Any], None]:
        """The function as it is called with a record, or a list of them: with working database connections."""
        function = self.function
        if self.exactly_once_in is not None:
            function = exactly_once(
                function,
                alias=self.alias,
                group_id=self.group_id,
                batches=self.batches,
                using=self.exactly_once_in,
            )
        return with_fresh_connections(function)


_known: dict[str, Handler] = {}  # by name; added to when modules are imported, which one thread does at a time


def kafka_handler(
    *topics: str,
    group_id: str,
    name: str | None = None,
    alias: str = "default",
    batches: bool = False,
    retries: int = 3,
    backoff_ms: float = 100,
    backoff_max_ms: float = 10_000,
    dead_letter_topic: str | None = None,
    error_limit: int | None = None,
    exactly_once_in: str | None = None,
    **consumer_options: Any,
) -> Callable[[_Function], _Function]:
    """Have ``manage.py kafka_consume`` call a function with each record of ``topics``.

    Put it in a module ``kafka`` or ``consumers`` of an app; the command imports those, and nothing else does. The
    function is called on a thread of its handler's own, and returned as it is, so a test may call it.

    A record counts as read when the function has returned, and is handled at least once: again after a crash, say.

    Args:
        topics: whose records.
        group_id: the consumer group. What it has committed is where it goes on.
        name: what the command calls the handler. Default: the function's name.
        alias: of ``settings.POOLEDKAFKA``.
        batches: call it with a list of records of one partition, in place of one record.
        retries: how often it is called again with what it raised for, before that is final.
        backoff_ms: milliseconds before the first of these, doubled and jittered for the next.
        backoff_max_ms: the longest pause.
        dead_letter_topic: where records go for which it still raises. None: the error ends the command; so do, always,
            Django's OperationalError and InterfaceError, since the next record would fare no better.
        error_limit: after so many records in a row that could not be handled, the command ends.
        exactly_once_in: alias of a database: the function runs in a transaction there in which the offset is noted too,
            so what it does in that database happens exactly once for each record. Needs ``migrate pooledkafka``.
        consumer_options: any of ``Consumer``'s, such as ``auto_offset_reset="earliest"``; before those of the settings.

    Raises:
        ConfigurationError: there are no topics, another handler has that name, or the function is a coroutine function.

    Example:
        >>> @kafka_handler("orders", group_id="billing", dead_letter_topic="orders.failed")
        ... def bill(record):
        ...     Invoice.objects.create(order_id=int(record.key), body=record.value)
    """
    if not topics or not all(isinstance(topic, str) for topic in topics):
        raise ConfigurationError(
            'kafka_handler needs topics and is called: @kafka_handler("orders", group_id="billing")'
        )

    def register(function: _Function) -> _Function:
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            # It would return at once without having run, and each record would count as handled.
            raise ConfigurationError(
                f"{function.__module__}.{function.__qualname__} is an async function, and handlers are called on "
                "threads; make it a plain one, which may use asgiref.sync.async_to_sync"
            )
        given = {
            "batches": (batches, False),
            "retries": (retries, 0),
            "backoff_ms": (backoff_ms, 100),
            "backoff_max_ms": (backoff_max_ms, 10_000),
            "dead_letter_topic": (dead_letter_topic, None),
            "error_limit": (error_limit, None),
        }
        handler = Handler(
            name=name or function.__name__,
            function=function,
            topics=topics,
            group_id=group_id,
            alias=alias,
            batches=batches,
            exactly_once_in=exactly_once_in,
            run_options={option: value for option, (value, default) in given.items() if value != default},
            consumer_options=consumer_options,
        )
        other = _known.get(handler.name)
        # The same again is a module that was reloaded; a function may well have several handlers, of several names.
        if other is not None and _identity(other) != _identity(handler):
            raise ConfigurationError(
                f"two handlers are named {handler.name!r}: {_described(other)}, and {_described(handler)}; give one "
                "another name="
            )
        _known[handler.name] = handler
        return function

    return register


def _identity(handler: Handler) -> tuple[Any, ...]:
    return handler.path, handler.topics, handler.group_id, handler.alias


def _described(handler: Handler) -> str:
    topics = ", ".join(handler.topics)
    return f"{handler.path} for {topics} as group {handler.group_id!r} of alias {handler.alias!r}"


def discovered() -> list[Handler]:
    """All handlers, by name, after the modules ``kafka`` and ``consumers`` of the installed apps were imported."""
    autodiscover_modules("kafka", "consumers")
    return [_known[name] for name in sorted(_known)]


def selected(
    handlers: Iterable[Handler], names: Collection[str], groups: Collection[str], aliases: Collection[str]
) -> list[Handler]:
    """Those with one of the names (or paths), one of the groups and one of the aliases, where any are given.

    Raises:
        ConfigurationError: a name, group or alias that no handler has.
    """
    handlers = list(handlers)
    wanted = (
        ("handler", names, [each.name for each in handlers] + [each.path for each in handlers]),
        ("group", groups, [each.group_id for each in handlers]),
        ("alias", aliases, [each.alias for each in handlers]),
    )
    for what, given, known in wanted:
        for one in given:
            if one not in known:
                near = difflib.get_close_matches(one, known, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else " kafka_consume --list shows all."
                raise ConfigurationError(f"no handler has the {what} {one!r}.{hint}".replace("has the handler", "is"))
    return [
        each
        for each in handlers
        if (not names or each.name in names or each.path in names)
        and (not groups or each.group_id in groups)
        and (not aliases or each.alias in aliases)
    ]
