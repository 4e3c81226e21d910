"""A producer over a shared pool."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kafka.errors import IllegalStateError, KafkaTimeoutError
from kafka.partitioner import Partitioner

from pooledkafka._batch import BatchFuture, not_told
from pooledkafka._client import PooledClient
from pooledkafka._connection import Connection
from pooledkafka._forking import abandon, inherit, notice_fork
from pooledkafka._locks import LockName, check_free, new_lock
from pooledkafka._unclosed import made_here
from pooledkafka._wire import TopicSender, WiredProducer, as_serializer, fail_in_child, keep
from pooledkafka.config import PRODUCER_OPTIONS
from pooledkafka.errors import ConfigurationError, PoolClosedError, PoolTimeoutError
from pooledkafka.pool import ConnectionPool

__all__ = ["Producer"]


_CLOSING = "the record was not sent: the producer was closed, or its pool disconnected, meanwhile"
_ONLY_VALUE = {"value"}
_MESSAGE_FIELDS = frozenset({"value", "key", "headers", "partition", "timestamp_ms"})


def _checked(messages: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    try:
        several = None if isinstance(messages, Mapping) else iter(messages)
    except TypeError:
        several = None
    if several is None:
        raise ConfigurationError(f"send_batch takes several messages, such as a list of them, not {_named(messages)}")
    batch = list(several)
    for message in batch:
        try:
            fields = message.keys()
            is_known = fields == _ONLY_VALUE or fields <= _MESSAGE_FIELDS
        except (AttributeError, TypeError):
            raise ConfigurationError(
                f"a message is a mapping such as {{'value': b'...'}}, not {_named(message)}"
            ) from None
        if not is_known:
            unknown = sorted(set(fields) - _MESSAGE_FIELDS, key=str)[0]
            known = ", ".join(sorted(_MESSAGE_FIELDS))
            raise ConfigurationError(f"{unknown!r} is not a field of a message; those are {known}")
    return batch


def _named(wrong: object) -> str:
    """What something is, and not what is in it."""
    return f"an instance of {type(wrong).__qualname__}"


class _Topics:
    """What a handle sends with, by topic."""

    def __init__(self, sender: WiredProducer | None) -> None:
        self.sender = sender
        self.known: dict[str, TopicSender] = {}


class Producer(PooledClient):
    """A Kafka producer whose connections are the pool's; its methods are ``KafkaProducer``'s.

    Args:
        connection_pool: the pool to share. None: a private pool, made from the connection options given here and
            closed with this producer.
        options: kafka-python's producer options (``acks``, ``linger_ms``, ``value_serializer``, ...), with its names,
            defaults and meaning, but for ``batch_size``: 1,000,000 bytes. Connection and security options belong to the
            pool.

    A producer is a light handle: those of one pool with equal options share one KafkaProducer with its thread, and
    their records travel in common batches. So one for each request of a web application is fine. Serializers belong to
    the handle. A ``transactional_id`` belongs to one handle at a time, with a KafkaProducer of its own; after the pool
    was disconnected and connected again, it starts anew with ``init_transactions()``.

    Thread-safe. Nothing connects and no thread starts until the first use.

    Raises:
        ConfigurationError: an option is unknown, cannot work, or contradicts the pool's.

    Example:
        >>> with Producer(connection_pool=pool) as producer:
        ...     producer.send("orders", b"value", key=b"k").get(timeout=10)
    """

    _what = "a producer"
    _known_options = PRODUCER_OPTIONS
    _connection: Connection | None = None
    _sender: WiredProducer | None = None

    def __init__(self, *, connection_pool: ConnectionPool | None = None, **options: Any) -> None:
        super().__init__(connection_pool, options)
        if not callable(getattr(options.get("partitioner", Partitioner), "partition", None)):
            raise ConfigurationError(
                f"partitioner={options['partitioner']!r} has no method partition(); give an object of a class that "
                "extends kafka.partitioner.Partitioner"
            )
        # Other handles hold nothing of their own, and may be dropped as they are.
        if self._private_pool is not None or options.get("transactional_id") is not None:
            self._made_at = made_here()
        self._key_serializer = self._value_serializer = None
        if "partitioner" not in options:  # one of the user's may look at keys and values as they were given
            self._key_serializer = as_serializer(self._options.pop("key_serializer", None))
            self._value_serializer = as_serializer(self._options.pop("value_serializer", None))
        # Guards the two fields below and that _closed is set; never held while the pool connects or records are sent.
        # Once set, _sender is read without it.
        self._opening = new_lock(LockName.OPENING)
        self._connection = None
        self._sender = None
        self._topics = _Topics(None)  # replaced as a whole, by whichever thread sends first with another sender
        # Futures of this handle's records that are not done; added by any thread, taken out by whichever completes one.
        self._unfinished: set[Any] = set()
        inherit(self)

    # -- life cycle ----------------------------------------------------------------------------------------------------

    def close(self, timeout_ms: float = 30_000) -> None:
        """Send what is buffered and detach; the pool and its other clients go on. Idempotent.

        In a callback of a record, which runs on the thread that delivers them, it does not wait for the rest.

        Args:
            timeout_ms: milliseconds to wait for acknowledgements.

        Raises:
            PoolTimeoutError: records were left undelivered; the message says how many. The producer is closed.
            PoolError: called where it would wait for this very thread: on the pool's I/O thread, or, for a producer
                with a ``transactional_id`` or a private pool, in a callback of a record.
        """
        notice_fork()
        sender = self._sender
        delivering = sender is not None and sender.on_sender_thread
        if not delivering or self._made_at is not None:
            self._pool._check_may_wait("close a producer")
        with self._opening:
            self._closed = True
            connection, self._connection = self._connection, None
            sender, self._sender = self._sender, None
        self._pool._forget_producer(self)
        try:
            if sender is not None and connection is not None and connection is self._pool._connection:
                self._finish(connection, sender, timeout_ms)
        finally:
            self._close_private_pool(timeout_ms)

    def _finish(self, connection: Connection, sender: WiredProducer, timeout_ms: float) -> None:
        try:
            if not sender.on_sender_thread:
                sender.flush(list(self._unfinished), timeout_ms)
        except KafkaTimeoutError as error:
            raise PoolTimeoutError(
                f"the producer is closed, but {error}. They will still be sent while the pool is connected; call "
                "flush() before close(), or give it a longer timeout_ms."
            ) from error
        finally:
            connection.senders.release(sender, timeout_ms)

    def _let_go(self) -> bool:
        sender, connection = self._sender, self._connection
        if sender is None or connection is None or connection is not self._pool._connection:
            return False
        sender.dropped = self._options.get("transactional_id") is not None
        if sender.counted:
            connection.drop_sender(sender)
        self._pool._tell_of_dropped("producer")
        return sender.counted

    def _in_child(self) -> None:
        self._opening = new_lock(LockName.OPENING)
        abandon((self._connection, self._sender, self._unfinished))
        self._connection = self._sender = None
        self._topics = _Topics(None)
        unfinished, self._unfinished = self._unfinished, set()
        for future in unfinished:
            fail_in_child(future, not_told("the future of the record", self._made_by))
        self._forked = self._forked or self._options.get("transactional_id") is not None

    def _opened(self) -> WiredProducer:
        notice_fork()
        sender = self._sender
        if sender is not None and self._connection is self._pool._connection and not sender.useless:
            return sender
        self._connect_pool()
        with self._opening:
            self._check_open()
            connection = self._connection
            if self._sender is None or connection is None or connection is not self._pool._connection:
                self._sender = None  # of a connection that the pool has ended, and with it its records
                self._connection = self._pool._attach_producer(self)
                self._sender = self._connection.senders.acquire(self._options)
            if self._sender.useless and self._connection is not None:
                self._sender = self._connection.senders.renew(self._sender, self._options)
            return self._sender

    # -- sending -------------------------------------------------------------------------------------------------------

    def send(
        self,
        topic: str,
        value: Any = None,
        key: Any = None,
        headers: list[tuple[str, bytes]] | None = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> Any:
        """Send a record; returns kafka-python's future of its metadata. See ``KafkaProducer.send``.

        Raises:
            PoolClosedError: the producer is closed, or its pool disconnected.
            SaslAuthenticationFailedError: a broker does not let the pool in any more, because a password was changed,
                say. Records that wait already are sent if it does within ``delivery_timeout_ms``. ConnectFailedError,
                where that is for a certificate.
        """
        sender = self._opened()
        sender.check_login()
        check_free("sending")
        try:
            return self._to(sender, topic).send(value, key, headers, partition, timestamp_ms)
        except IllegalStateError as error:
            if sender.closing:
                raise PoolClosedError(_CLOSING) from error
            raise

    def send_batch(self, topic: str, messages: Iterable[Mapping[str, Any]]) -> BatchFuture:
        """Send several records; returns one future for all.

        Args:
            topic: where they go.
            messages: for each record a mapping with any of ``value``, ``key``, ``headers``, ``partition`` and
                ``timestamp_ms``, as for ``send``.

        Returns:
            One future, of the list of the records' metadata in their order. It fails with the first error of a record,
            when every record has been acknowledged or has failed. After a record that could not be sent, because it is
            too large, say, no more are.

        Raises:
            ConfigurationError: these are not several messages, or one is no mapping, or has an unknown field; nothing
                was sent.
            PoolClosedError: the producer is closed, or its pool disconnected.

        Example:
            >>> producer.send_batch("orders", [{"value": b"one"}, {"value": b"two", "key": b"k"}]).get(timeout=10)
        """
        batch = _checked(messages)
        sender = self._opened()
        sender.check_login()
        check_free("sending")
        try:
            runs, unsent = self._to(sender, topic).send_all(batch)
        except IllegalStateError as error:
            if sender.closing:
                raise PoolClosedError(_CLOSING) from error
            raise
        if isinstance(unsent, IllegalStateError) and sender.closing:
            unsent = PoolClosedError(_CLOSING)
        future = BatchFuture(len(batch), runs, unsent)
        keep(self._unfinished, future)
        return future

    def _to(self, sender: WiredProducer, topic: str) -> TopicSender:
        topics = self._topics
        if topics.sender is not sender:
            topics = self._topics = _Topics(sender)
        known = topics.known.get(topic)
        if known is None:
            sender.want(topic)
            known = topics.known[topic] = sender.to(
                topic, self._key_serializer, self._value_serializer, self._unfinished
            )
        return known

    def flush(self, timeout: float | None = None) -> None:
        """Wait until all records sent so far by this producer are acknowledged or have failed.

        Args:
            timeout: seconds, for all of them together. Default: no limit.

        Raises:
            KafkaTimeoutError: some were not acknowledged in time.
            PoolError: called in a callback of a record or on the pool's I/O thread, for which it would wait.
        """
        self._pool._check_may_wait("flush a producer")
        sender = self._sender
        if sender is not None and self._connection is self._pool._connection:
            sender.flush(list(self._unfinished), None if timeout is None else timeout * 1000)

    def partitions_for(self, topic: str) -> set[int]:
        """The partitions of ``topic``."""
        return set(self._opened().kafka.partitions_for(topic))

    def metrics(self, raw: bool = False) -> Any:
        """kafka-python's metrics of this producer."""
        return self._opened().kafka.metrics(raw)

    # -- transactions --------------------------------------------------------------------------------------------------

    def init_transactions(self) -> None:
        """Register ``transactional_id``, once, before the first transaction."""
        self._opened().kafka.init_transactions()

    def begin_transaction(self) -> None:
        """Begin a transaction; all that is sent until its end becomes visible together, or not at all."""
        self._opened().kafka.begin_transaction()

    def send_offsets_to_transaction(self, offsets: Any, group_metadata: Any) -> None:
        """Commit a consumer's offsets as part of the transaction."""
        self._opened().kafka.send_offsets_to_transaction(offsets, group_metadata)

    def commit_transaction(self) -> None:
        """Make what was sent visible."""
        self._opened().kafka.commit_transaction()

    def abort_transaction(self) -> None:
        """Withdraw what was sent."""
        self._opened().kafka.abort_transaction()

    def __repr__(self) -> str:
        state = "closed" if self._closed else "attached" if self._sender is not None else "not attached"
        return f"<Producer [{state}] of {self._pool!r}>"
