"""The trace that a record belongs to, in its headers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.propagators.textmap import Getter, Setter
from opentelemetry.trace import Link

from pooledkafka._logging import get_logger

__all__ = ["Headers", "context_in", "link_to", "with_context"]

_log = get_logger("pooledkafka.tracing")

Headers = list[tuple[str, bytes]]


class _Getter(Getter[Headers]):
    def get(self, carrier: Headers, key: str) -> list[str] | None:
        found = [value.decode("utf-8", "replace") for name, value in carrier if name == key and value is not None]
        return found or None

    def keys(self, carrier: Headers) -> list[str]:
        return [name for name, _ in carrier]


class _Setter(Setter[Headers]):
    """Puts a header in place of one of its name, as where a record is sent on with the headers that it came with."""

    def set(self, carrier: Headers, key: str, value: str) -> None:
        # What is no pair is left to whoever refuses it.
        carrier[:] = [each for each in carrier if not (isinstance(each, tuple) and each[:1] == (key,))]
        carrier.append((key, value.encode()))


_getter, _setter = _Getter(), _Setter()


def context_in(headers: Iterable[tuple[str, bytes]] | None) -> Context:
    """The context that ``headers`` carry; an empty one where they carry none that can be read."""
    try:
        return propagate.extract(list(headers or ()), context=Context(), getter=_getter)
    except Exception as error:
        # Some propagators raise for what they do not understand. A poll has moved on by now, so its records would be
        # lost; and whoever writes a record could keep all who read it from going on.
        _log.debug("trace.not_read", error=repr(error))
        return Context()


def with_context(headers: Headers | None, context: Context) -> Any:
    """A copy of ``headers`` that carries ``context``; what is no list is left to whoever refuses it."""
    if headers is not None and not isinstance(headers, list):
        return headers
    carrier = list(headers or ())
    propagate.inject(carrier, context, setter=_setter)
    return carrier


def link_to(record: Any) -> Link | None:
    """A link to the span that has sent ``record``, if that is known."""
    if not record.headers:  # of most that are not traced; asking a propagator costs as much as reading the record
        return None
    sent = trace.get_current_span(context_in(record.headers)).get_span_context()
    return Link(sent) if sent.is_valid else None
