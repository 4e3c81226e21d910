"""The last steps of ``doctor``, which take a pool: a record is sent, and a group joined and left."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import closing, suppress
from typing import Any

from kafka.consumer.subscription_state import ConsumerRebalanceListener
from kafka.errors import ClusterAuthorizationFailedError, KafkaError, KafkaTimeoutError, TopicAuthorizationFailedError

from pooledkafka._cli.connecting import connected
from pooledkafka._cli.coordinated import described_group
from pooledkafka._cli.findings import Finding, Status
from pooledkafka._cli.reasons import advice_on
from pooledkafka.admin import Admin
from pooledkafka.consumer import Consumer
from pooledkafka.pool import ConnectionPool
from pooledkafka.producer import Producer

__all__ = ["examine_group", "examine_writing"]

_NO_TOPIC = "^pooledkafka-doctor-looks-for-no-topic$"
_POLL_MS = 100
_REBALANCE_DELAY_S = 5.0
"""Brokers let the first member of a group wait for others, 3 s by default."""


def examine_writing(options: Mapping[str, Any], topic: str, timeout_ms: float) -> Finding:
    """Send one record, without a value."""
    began = time.monotonic()
    try:
        with connected(options, timeout_ms / 1000) as pool:
            began = time.monotonic()
            try:
                sent = _send(pool, topic, timeout_ms)
            except KafkaError as error:
                if "ClusterAuthorizationFailed" not in repr(error):
                    raise
                # A producer that is idempotent, as it is by default, gets no id: because it may not be idempotent, or
                # because it may write to no topic at all.
                _send(pool, topic, timeout_ms, enable_idempotence=False)
                raise ClusterAuthorizationFailedError(str(error)) from error
    except KafkaError as error:
        return Finding("write", topic, Status.FAILED, _ms(began), *advice_on(error, f"topic {topic!r}"))
    return Finding("write", topic, Status.OK, _ms(began), found=f"partition {sent.partition}, offset {sent.offset}")


def _send(pool: ConnectionPool, topic: str, timeout_ms: float, **how: Any) -> Any:
    with Producer(connection_pool=pool, **how) as producer:
        return producer.send(topic, b"", headers=[("pooledkafka-doctor", b"1")]).get(timeout_ms / 1000)


def examine_group(
    options: Mapping[str, Any], group: str, topic: str | None, timeout_ms: float, *, throw_away: bool
) -> Finding:
    """Join a group and leave it; one that has members is only looked at, since each join interrupts them."""
    began = time.monotonic()
    try:
        with connected(options, timeout_ms / 1000) as pool:
            began = time.monotonic()
            members = None if throw_away else _in_use(pool, group, timeout_ms)
            if members is not None:
                return Finding("group", group, Status.OK, _ms(began), found=f"in use ({members}), so not joined")
            found = _join(pool, group, topic, timeout_ms)
            took = _ms(began)
            if throw_away:
                # The cluster would by itself, in some minutes. Where the user may not, it does.
                with suppress(KafkaError), closing(Admin(connection_pool=pool)) as admin:
                    admin.delete_groups([group])
    except KafkaError as error:
        return Finding("group", group, Status.FAILED, _ms(began), *advice_on(error, f"group {group!r}"))
    return Finding("group", group, Status.OK, took, found=found)


def _in_use(pool: ConnectionPool, group: str, timeout_ms: float) -> str | None:
    """What is known of a group that has members; None where it has none."""
    with closing(Admin(connection_pool=pool)) as admin:
        described = described_group(admin, group, timeout_ms)
        if described["members"]:
            return f"{len(described['members'])} members, {described['group_state']}"
        # Groups of the newer protocol (KIP-848) are not described by that.
        for known in admin.list_groups():
            if known["group_id"] == group and known.get("group_state", "Empty") not in ("", "Empty", "Dead"):
                return str(known["group_state"])
    return None


class _Joined(ConsumerRebalanceListener):  # type: ignore[misc]
    def __init__(self) -> None:
        self.event = threading.Event()

    def on_partitions_assigned(self, assigned: Any) -> None:
        self.event.set()

    def on_partitions_revoked(self, revoked: Any) -> None:
        pass


def _join(pool: ConnectionPool, group: str, topic: str | None, timeout_ms: float) -> str:
    joined = _Joined()
    until = time.monotonic() + timeout_ms / 1000 + _REBALANCE_DELAY_S
    with Consumer(connection_pool=pool, group_id=group, enable_auto_commit=False, max_poll_records=1) as consumer:
        if topic is None:
            consumer.subscribe(pattern=_NO_TOPIC, listener=joined)
        else:
            consumer.subscribe([topic], listener=joined)
        while not joined.event.is_set():
            if time.monotonic() > until:
                raise KafkaTimeoutError(f"the group {group!r} could not be joined in time")
            try:
                consumer.poll(_POLL_MS)
            except TopicAuthorizationFailedError:
                # Of a fetch, before the listener has been told: that is not the group's, and was said before.
                if not consumer.assignment():
                    raise
                break
        return f"joined and left; {len(consumer.assignment())} partitions assigned"


def _ms(began: float) -> float:
    return (time.monotonic() - began) * 1000
