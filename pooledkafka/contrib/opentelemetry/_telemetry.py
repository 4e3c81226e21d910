"""Spans and metrics by the messaging conventions: https://opentelemetry.io/docs/specs/semconv/messaging/."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from opentelemetry import metrics, trace
from opentelemetry.context import Context, attach, detach
from opentelemetry.metrics import MeterProvider
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, TracerProvider

from pooledkafka.contrib.opentelemetry._headers import Headers, context_in, link_to, with_context

__all__ = ["Telemetry"]

_NAME = "pooledkafka"
_SCHEMA = "https://opentelemetry.io/schemas/1.30.0"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
_TYPES = {"send": "send", "poll": "receive", "process": "process"}
"""Of the operations, by their names."""
_LINKS = 128
"""To so many records of a poll or a list: what SDKs keep by default."""

Attributes = dict[str, Any]


class Telemetry:
    """Makes spans and counts; from any thread."""

    def __init__(self, tracer_provider: TracerProvider | None, meter_provider: MeterProvider | None) -> None:
        self._tracer = trace.get_tracer(_NAME, tracer_provider=tracer_provider, schema_url=_SCHEMA)
        meter = metrics.get_meter(_NAME, meter_provider=meter_provider, schema_url=_SCHEMA)
        self._took = meter.create_histogram(
            "messaging.client.operation.duration",
            "s",
            "How long a send took to be acknowledged, or a poll to return records.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._handled = meter.create_histogram(
            "messaging.process.duration",
            "s",
            "How long a handler took.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._sent = meter.create_counter("messaging.client.sent.messages", "{message}", "Records sent.")
        self._consumed = meter.create_counter(
            "messaging.client.consumed.messages", "{message}", "Records given to the application."
        )

    # -- send ----------------------------------------------------------------------------------------------------------

    def send(self, send: Callable[[Headers | None], Any], client_id: str, topic: str, headers: Any, key: Any) -> Any:
        """Send one record by ``send``, which gets the headers that carry the context."""
        about = _about("send", client_id, topic)
        if isinstance(key, (str, bytes)):
            about["messaging.kafka.message.key"] = key if isinstance(key, str) else key.decode("utf-8", "replace")
        span, parent = self._sending(topic, about, headers if isinstance(headers, list) else None)
        return self._follow(
            span, about, 1, lambda: send(with_context(headers, trace.set_span_in_context(span, parent)))
        )

    def send_batch(
        self, send: Callable[[list[Any]], Any], client_id: str, topic: str, messages: Iterable[Mapping[str, Any]]
    ) -> Any:
        """Send several by ``send``: one span for all, which each of them names as what has sent it."""
        about = _about("send", client_id, topic)
        batch = list(messages)
        span, parent = self._sending(topic, {**about, "messaging.batch.message_count": len(batch)}, None)
        context = trace.set_span_in_context(span, parent)

        def carrying() -> Any:
            return send([{**each, "headers": with_context(each.get("headers"), context)} for each in batch])

        return self._follow(span, about, len(batch), carrying)

    def _sending(self, topic: str, attributes: Attributes, headers: Headers | None) -> tuple[Span, Context | None]:
        parent = None
        if headers and not trace.get_current_span().get_span_context().is_valid:
            parent = context_in(headers)  # sent on by somebody who is not traced, as a dead letter is
        return self._tracer.start_span(f"send {topic}", parent, SpanKind.PRODUCER, attributes), parent

    def _follow(self, span: Span, about: Attributes, count: int, send: Callable[[], Any]) -> Any:
        began = time.monotonic()

        def done(outcome: Any) -> None:
            error = outcome if isinstance(outcome, BaseException) else None
            if error is not None:
                _failed(span, error)
            elif hasattr(outcome, "offset") and span.is_recording():
                span.set_attribute("messaging.destination.partition.id", str(outcome.partition))
                span.set_attribute("messaging.kafka.offset", outcome.offset)
            span.end()
            counted = _with_error(about, error)
            self._sent.add(count, counted)
            self._took.record(time.monotonic() - began, counted)

        try:
            future = send()
        except BaseException as error:
            done(error)
            raise
        future.add_both(done)  # on whatever thread completes it
        return future

    # -- receive and process -------------------------------------------------------------------------------------------

    def received(
        self, records: Mapping[Any, Sequence[Any]], client_id: str, group: str | None, began: tuple[int, float]
    ) -> None:
        """Tell of a poll that has returned ``records``, by partition; it ``began`` then, by both clocks."""
        topics = {partition.topic for partition in records}
        topic = topics.pop() if len(topics) == 1 else None
        about = _about("poll", client_id, topic, group)
        count = sum(map(len, records.values()))
        attributes: Attributes = {**about, "messaging.batch.message_count": count}
        if len(records) == 1:
            (partition,) = records
            attributes["messaging.destination.partition.id"] = str(partition.partition)
        links = _links(record for each in records.values() for record in each)
        name = "poll" if topic is None else f"poll {topic}"
        self._tracer.start_span(name, None, SpanKind.CLIENT, attributes, links, start_time=began[0]).end()
        self._took.record(time.monotonic() - began[1], about)
        for partition, each in records.items():
            self._consumed.add(len(each), _about("poll", client_id, partition.topic, group))

    @contextmanager
    def processing(self, records: Sequence[Any], client_id: str, group: str | None) -> Iterator[None]:
        """The span of a handler that has ``records`` of one partition; of one record, a child of what has sent it."""
        first = records[0]
        about = _about("process", client_id, first.topic, group)
        attributes: Attributes = {**about, "messaging.destination.partition.id": str(first.partition)}
        parent = None
        if len(records) == 1:
            attributes["messaging.kafka.offset"] = first.offset
            parent = context_in(first.headers)
        else:
            attributes["messaging.batch.message_count"] = len(records)
        error: BaseException | None = None
        began = time.monotonic()
        span = self._tracer.start_span(f"process {first.topic}", parent, SpanKind.CONSUMER, attributes, _links(records))
        token = attach(trace.set_span_in_context(span, parent))  # and what else the headers carry
        try:
            yield
        except BaseException as raised:
            error = raised
            _failed(span, raised)
            raise
        finally:
            detach(token)
            span.end()
            self._handled.record(time.monotonic() - began, _with_error(about, error))
            self._consumed.add(len(records), about)


def _about(operation: str, client_id: str, topic: str | None, group: str | None = None) -> Attributes:
    about: Attributes = {
        "messaging.system": "kafka",
        "messaging.operation.name": operation,
        "messaging.operation.type": _TYPES[operation],
        "messaging.client.id": client_id,
    }
    if topic is not None:
        about["messaging.destination.name"] = topic
    if group is not None:
        about["messaging.consumer.group.name"] = group
    return about


def _links(records: Iterable[Any]) -> list[Any]:
    links = []
    for record in records:
        link = link_to(record)
        if link is not None:
            links.append(link)
            if len(links) == _LINKS:
                break
    return links


def _failed(span: Span, error: BaseException) -> None:
    span.record_exception(error)
    span.set_attribute("error.type", type(error).__qualname__)
    span.set_status(Status(StatusCode.ERROR, str(error)))


def _with_error(about: Attributes, error: BaseException | None) -> Attributes:
    return about if error is None else {**about, "error.type": type(error).__qualname__}
