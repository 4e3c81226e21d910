from __future__ import annotations

import functools
import subprocess
import sys
import textwrap
from typing import Any

import pytest
from kafka.errors import MessageSizeTooLargeError
from opentelemetry import baggage, propagate, trace
from opentelemetry.context import attach, detach
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace import SpanKind, StatusCode

from pooledkafka import ConfigurationError, ConnectionPool, Consumer, Kafka, Producer
from pooledkafka.contrib.opentelemetry import PooledKafkaInstrumentor
from pooledkafka.testing import EmbeddedKafka, Error
from tests.contrib.opentelemetry.conftest import Told

SENT = {
    "messaging.system": "kafka",
    "messaging.operation.name": "send",
    "messaging.operation.type": "send",
    "messaging.client.id": "shop",
    "messaging.destination.name": "orders",
}
instrumented = pytest.mark.usefixtures("instrumented")


def consumer_of(pool: ConnectionPool, **options: Any) -> Consumer:
    options = {"auto_offset_reset": "earliest", "enable_auto_commit": False, **options}
    return Consumer(connection_pool=pool, group_id="billing", **options)


def run(pool: ConnectionPool, handler: Any, topic: str = "orders", **options: Any) -> None:
    with consumer_of(pool) as consumer:
        consumer.subscribe([topic])
        consumer.run(handler, until_end=True, **options)


def id_of(span: Any) -> tuple[int, int]:
    context = span.context
    return context.trace_id, context.span_id


def links_of(span: Any) -> list[tuple[int, int]]:
    return [(link.context.trace_id, link.context.span_id) for link in span.links]


@instrumented
class TestSending:
    def test_a_send_is_a_span_that_ends_with_the_acknowledgement(self, pool: ConnectionPool, told: Told) -> None:
        metadata = Producer(connection_pool=pool).send("orders", b"tea", key=b"alice").get(timeout=10)
        span = told.span("send orders")
        assert span.kind is SpanKind.PRODUCER
        assert dict(span.attributes or {}) == {
            **SENT,
            "messaging.kafka.message.key": "alice",
            "messaging.destination.partition.id": str(metadata.partition),
            "messaging.kafka.offset": metadata.offset,
        }

    def test_it_is_in_the_trace_of_its_caller(self, pool: ConnectionPool, told: Told) -> None:
        with told.tracer_provider.get_tracer("test").start_as_current_span("request") as request:
            Producer(connection_pool=pool).send("orders", b"tea").get(timeout=10)
        parent = told.span("send orders").parent
        assert parent is not None
        assert parent.span_id == request.get_span_context().span_id

    def test_what_fails_later_is_an_error_of_the_span(
        self, cluster: EmbeddedKafka, pool: ConnectionPool, told: Told
    ) -> None:
        cluster.intercept("Produce", Error(MessageSizeTooLargeError))
        with pytest.raises(MessageSizeTooLargeError):
            Producer(connection_pool=pool).send("orders", b"tea").get(timeout=10)
        span = told.span("send orders")
        assert span.status.status_code is StatusCode.ERROR
        assert (span.attributes or {})["error.type"] == "MessageSizeTooLargeError"
        assert [event.name for event in span.events] == ["exception"]

    def test_what_fails_at_once_too(self, pool: ConnectionPool, told: Told) -> None:
        with pytest.raises(TypeError):
            Producer(connection_pool=pool).send("orders", "no bytes")
        assert (told.span("send orders").attributes or {})["error.type"] == "TypeError"

    def test_a_batch_is_one_span_that_all_of_its_records_name(self, pool: ConnectionPool, told: Told) -> None:
        Producer(connection_pool=pool).send_batch("orders", [{"value": b"%d" % n} for n in range(3)]).get(timeout=10)
        span = told.span("send orders")
        assert (span.attributes or {})["messaging.batch.message_count"] == 3
        seen: list[Any] = []
        run(pool, seen.append)
        assert {links_of(each)[0] for each in told.spans("process orders")} == {id_of(span)}

    def test_headers_of_the_caller_stay_as_they_are(self, pool: ConnectionPool) -> None:
        headers = [("from", b"web")]
        Producer(connection_pool=pool).send("orders", b"tea", headers=headers).get(timeout=10)
        assert headers == [("from", b"web")]
        seen: list[Any] = []
        run(pool, seen.append)
        assert [name for name, _ in seen[0].headers] == ["from", "traceparent"]

    def test_headers_that_are_none_are_refused_as_ever(self, pool: ConnectionPool) -> None:
        with pytest.raises(TypeError, match="headers"):
            Producer(connection_pool=pool).send("orders", b"tea", headers=(("from", b"web"),))  # type: ignore[arg-type]
        refused: list[Any] = [("from",), (), "from", ("from", "text"), 1, ("from", b"web", b"more")]
        for header in refused:
            with pytest.raises(TypeError, match="headers"):
                Producer(connection_pool=pool).send("orders", b"tea", headers=[header])
        with pytest.raises(ConfigurationError, match="'valeu'"):
            Producer(connection_pool=pool).send_batch("orders", [{"valeu": b"tea"}])


@instrumented
class TestProcessing:
    def test_a_handler_is_a_child_of_what_has_sent_its_record(self, pool: ConnectionPool, told: Told) -> None:
        Producer(connection_pool=pool).send("orders", b"tea").get(timeout=10)
        inside: list[Any] = []
        run(pool, lambda record: inside.append(trace.get_current_span().get_span_context()))
        sent, span = told.span("send orders"), told.span("process orders")
        assert span.kind is SpanKind.CONSUMER
        assert span.parent is not None
        assert (span.parent.trace_id, span.parent.span_id) == id_of(sent)
        assert links_of(span) == [id_of(sent)]
        assert inside == [span.context]
        assert dict(span.attributes or {}) == {
            "messaging.system": "kafka",
            "messaging.operation.name": "process",
            "messaging.operation.type": "process",
            "messaging.client.id": "shop",
            "messaging.destination.name": "orders",
            "messaging.destination.partition.id": "0",
            "messaging.consumer.group.name": "billing",
            "messaging.kafka.offset": 0,
        }

    def test_baggage_comes_along(self, pool: ConnectionPool) -> None:
        token = attach(baggage.set_baggage("tenant", "5"))
        try:
            Producer(connection_pool=pool).send("orders", b"tea").get(timeout=10)
        finally:
            detach(token)
        seen: list[Any] = []
        run(pool, lambda record: seen.append(baggage.get_baggage("tenant")))
        assert seen == ["5"]
        assert baggage.get_baggage("tenant") is None, "and is not left behind"

    def test_what_a_handler_sends_on_is_of_its_trace(
        self, cluster: EmbeddedKafka, pool: ConnectionPool, told: Told
    ) -> None:
        cluster.create_topic("bills")
        producer = Producer(connection_pool=pool)
        producer.send("orders", b"tea").get(timeout=10)
        run(pool, lambda record: producer.send("bills", record.value, headers=record.headers).get(timeout=10))
        sent_on, process = told.span("send bills"), told.span("process orders")
        assert sent_on.parent is not None
        assert sent_on.parent.span_id == process.context.span_id
        seen: list[Any] = []
        run(pool, seen.append, "bills")
        assert [name for name, _ in seen[0].headers] == ["traceparent"], "in place of the one that it came with"
        assert links_of(told.span("process bills")) == [id_of(sent_on)]

    def test_a_list_of_records_has_links_to_all_that_have_sent_them(self, pool: ConnectionPool, told: Told) -> None:
        producer = Producer(connection_pool=pool)
        for value in (b"one", b"two"):
            producer.send("orders", value).get(timeout=10)
        run(pool, lambda records: None, batches=True)
        linked = [link for span in told.spans("process orders") for link in links_of(span)]
        assert linked == [id_of(span) for span in told.spans("send orders")]
        assert all(span.parent is None for span in told.spans("process orders"))

    def test_each_attempt_is_a_span_and_a_dead_letter_goes_on_with_the_trace(
        self, cluster: EmbeddedKafka, pool: ConnectionPool, told: Told
    ) -> None:
        cluster.create_topic("dead")
        Producer(connection_pool=pool).send("orders", b"tea").get(timeout=10)

        def handler(record: Any) -> None:
            raise LookupError("no such customer")

        run(pool, handler, retries=1, backoff_ms=1, dead_letter_topic="dead")
        sent, attempts, dead = told.span("send orders"), told.spans("process orders"), told.span("send dead")
        assert [(span.attributes or {})["error.type"] for span in attempts] == ["LookupError"] * 2
        assert {each.context.trace_id for each in (*attempts, dead)} == {sent.context.trace_id}

    def test_a_record_of_somebody_who_is_not_traced_begins_a_trace(
        self, cluster: EmbeddedKafka, pool: ConnectionPool, told: Told
    ) -> None:
        PooledKafkaInstrumentor().uninstrument()
        Producer(connection_pool=pool).send("orders", b"tea", headers=[("traceparent", b"\xff garbage")]).get(
            timeout=10
        )
        PooledKafkaInstrumentor().instrument(tracer_provider=told.tracer_provider)
        run(pool, lambda record: None)
        span = told.span("process orders")
        assert (span.parent, span.links) == (None, ())

    def test_a_trace_that_cannot_be_read_keeps_nobody_from_its_record(
        self, pool: ConnectionPool, told: Told, request: pytest.FixtureRequest
    ) -> None:
        class Strict(TextMapPropagator):
            """Raises for what it does not understand, as that of Jaeger does."""

            @property
            def fields(self) -> set[str]:
                return {"uber-trace-id"}

            def extract(self, carrier: Any, context: Any = None, getter: Any = None) -> Any:
                for value in getter.get(carrier, "uber-trace-id") or ():
                    int(value, 16)
                return context

            def inject(self, carrier: Any, context: Any = None, setter: Any = None) -> None:
                pass

        request.addfinalizer(functools.partial(propagate.set_global_textmap, propagate.get_global_textmap()))
        propagate.set_global_textmap(Strict())
        producer = Producer(connection_pool=pool)
        for value, headers in ((b"one", None), (b"two", [("uber-trace-id", b"garbage")]), (b"three", None)):
            producer.send("orders", value, headers=headers, partition=0).get(timeout=10)
        with consumer_of(pool) as consumer:
            consumer.subscribe(["orders"])
            while not (polled := consumer.poll(timeout_ms=1_000)):
                pass
        assert [record.value for records in polled.values() for record in records] == [b"one", b"two", b"three"]
        seen: list[Any] = []
        run(pool, lambda record: seen.append(record.value))
        assert seen == [b"one", b"two", b"three"]
        assert told.span("poll orders").links == ()

    def test_coroutines_are_refused_as_ever(self, pool: ConnectionPool) -> None:
        async def handler(record: Any) -> None: ...

        with pytest.raises(ConfigurationError, match="coroutine"):
            run(pool, handler)


@instrumented
class TestReceiving:
    def test_a_poll_with_records_is_a_span_with_links(self, pool: ConnectionPool, told: Told) -> None:
        Producer(connection_pool=pool).send("orders", b"tea").get(timeout=10)
        with consumer_of(pool) as consumer:
            consumer.subscribe(["orders"])
            while not consumer.poll(timeout_ms=1_000):
                pass
            assert consumer.poll() == {}
        span = told.span("poll")  # one alone: that which found something
        assert (span.name, span.kind) == ("poll orders", SpanKind.CLIENT)
        assert links_of(span) == [id_of(told.span("send orders"))]
        attributes = dict(span.attributes or {})
        assert attributes["messaging.operation.type"] == "receive"
        assert attributes["messaging.batch.message_count"] == 1
        assert attributes["messaging.consumer.group.name"] == "billing"

    def test_iteration_too(self, pool: ConnectionPool, told: Told) -> None:
        Producer(connection_pool=pool).send("orders", b"tea").get(timeout=10)
        with consumer_of(pool) as consumer:
            consumer.subscribe(["orders"])
            assert next(consumer).value == b"tea"
        assert links_of(told.span("poll orders")) == [id_of(told.span("send orders"))]

    def test_records_without_headers_are_not_looked_into(
        self, pool: ConnectionPool, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        PooledKafkaInstrumentor().uninstrument()
        Producer(connection_pool=pool).send_batch("orders", [{"value": b"tea"}] * 3).get(timeout=10)
        PooledKafkaInstrumentor().instrument()
        looked: list[Any] = []
        monkeypatch.setattr(propagate, "extract", lambda *args, **options: looked.append(args))
        with consumer_of(pool) as consumer:
            consumer.subscribe(["orders"])
            while not consumer.poll(timeout_ms=1_000):
                pass
        assert looked == []


@instrumented
def test_metrics_count_and_time_what_happens(cluster: EmbeddedKafka, pool: ConnectionPool, told: Told) -> None:
    producer = Producer(connection_pool=pool)
    producer.send("orders", b"tea").get(timeout=10)
    producer.send_batch("orders", [{"value": b"one"}, {"value": b"two"}]).get(timeout=10)
    cluster.intercept("Produce", Error(MessageSizeTooLargeError), times=1)
    with pytest.raises(MessageSizeTooLargeError):
        producer.send("orders", b"tea").get(timeout=10)
    run(pool, lambda record: None)

    sent = {point.attributes.get("error.type"): point.value for point in told.points("messaging.client.sent.messages")}
    assert sent == {None: 3, "MessageSizeTooLargeError": 1}
    assert sum(point.count for point in told.points("messaging.client.operation.duration")) == 3
    (consumed,) = told.points("messaging.client.consumed.messages")
    assert (consumed.value, consumed.attributes["messaging.consumer.group.name"]) == (3, "billing")
    (handled,) = told.points("messaging.process.duration")
    assert (handled.count, handled.explicit_bounds[0]) == (3, 0.005)


class TestInstrumenting:
    def test_off_nothing_is_wrapped(self, told: Told) -> None:
        before = [getattr(client, name) for client, name in WRAPPED]
        instrumentor = PooledKafkaInstrumentor()
        instrumentor.instrument(tracer_provider=told.tracer_provider)
        instrumentor.instrument(tracer_provider=told.tracer_provider)
        assert not any(getattr(client, name) in before for client, name in WRAPPED)
        PooledKafkaInstrumentor().uninstrument()
        assert [getattr(client, name) for client, name in WRAPPED] == before
        PooledKafkaInstrumentor().uninstrument()

    def test_of_one_pool_only_its_clients_are_traced(self, kafka: Kafka, pool: ConnectionPool, told: Told) -> None:
        instrumentor = PooledKafkaInstrumentor()
        instrumentor.instrument(pool, tracer_provider=told.tracer_provider)
        try:
            with kafka.connection_pool() as other:
                Producer(connection_pool=other).send("orders", b"untold").get(timeout=10)
                assert told.spans() == []
                Producer(connection_pool=pool).send("orders", b"told").get(timeout=10)
            assert len(told.spans()) == 1
        finally:
            instrumentor.uninstrument(pool)
        Producer(connection_pool=pool).send("orders", b"untold").get(timeout=10)
        assert len(told.spans()) == 1

    def test_a_process_that_is_forked_meanwhile_can_instrument_itself(self) -> None:
        program = """
            import os, threading
            from pooledkafka.contrib.opentelemetry import PooledKafkaInstrumentor, _instrumentor

            changing, go_on = threading.Event(), threading.Event()

            class Slow(dict):
                def clear(self):
                    changing.set()
                    go_on.wait(0.5)  # with the lock, while the main thread forks

            _instrumentor._in_force.originals = Slow()
            threading.Thread(target=PooledKafkaInstrumentor().uninstrument).start()
            changing.wait()
            pid = os.fork()
            if not pid:
                PooledKafkaInstrumentor().instrument()
                os._exit(7)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7
        """
        command = [sys.executable, "-W", "ignore", "-c", textwrap.dedent(program)]
        subprocess.run(command, check=True, timeout=20)

    def test_the_package_does_not_import_it(self) -> None:
        program = "import sys, pooledkafka; assert not any('opentelemetry' in name for name in sys.modules)"
        subprocess.run([sys.executable, "-c", program], check=True, timeout=50)

    def test_without_the_api_the_extra_is_named(self) -> None:
        program = "import sys; sys.modules['opentelemetry'] = None; import pooledkafka.contrib.opentelemetry"
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=False)
        assert "pip install 'pooledkafka[opentelemetry]'" in done.stderr


WRAPPED = [(Producer, "send"), (Producer, "send_batch"), (Consumer, "poll"), (Consumer, "__next__"), (Consumer, "run")]
