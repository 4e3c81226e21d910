"""What ``doctor`` does: goes to the cluster step by step, as a client does, and finds out why a step fails."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from kafka.errors import for_code

from pooledkafka._cli.findings import Finding, Status
from pooledkafka._cli.joining import examine_group, examine_writing
from pooledkafka._cli.reasons import advice_on, second_look
from pooledkafka._wire.probing import Probe, Prober, bootstrap_addresses
from pooledkafka.config import pool_options

__all__ = ["examine"]

_AT_ONCE = 8


def examine(
    options: Mapping[str, Any], *, topic: str | None, group: str | None, write: bool, timeout_ms: float
) -> Iterator[Finding]:
    """Each step as it is done; the next depend on it. ``options`` are those that a pool is made with.

    Raises:
        ConfigurationError: a file with a key or certificate cannot be used.
        ValueError: bootstrap_servers is none.
    """
    complete = pool_options(options)
    addresses = bootstrap_addresses(complete["bootstrap_servers"])
    with Prober(complete, timeout_ms) as prober:
        examination = _Examination(prober)
        for host, port in addresses:
            yield from examination.reach(host, port)
        if examination.metadata is None:
            return
        yield from examination.look_at_brokers()
        if not examination.reachable:
            return
        if topic is not None:
            yield from examination.look_at_topic(topic)
    if topic is not None and not examination.topic_is_there:
        topic = None  # the group is examined without it
    if topic is not None and write:
        yield examine_writing(options, topic, timeout_ms)
    name = group or f"pooledkafka-doctor-{uuid.uuid4().hex[:8]}"
    yield examine_group(options, name, topic, timeout_ms, throw_away=group is None)


class _Examination:
    """What is known by now."""

    def __init__(self, prober: Prober) -> None:
        self._prober = prober
        self.metadata: dict[str, Any] | None = None  # from the first broker that let us in
        self.reachable: dict[int, tuple[str, int]] = {}  # brokers by id, at the addresses that they advertise
        self.topic_is_there = False
        self._entrance: tuple[str, int] = ("", 0)  # where we were let in

    # -- the connection ------------------------------------------------------------------------------------------------

    def reach(self, host: str, port: int) -> Iterator[Finding]:
        """From the name to the metadata."""
        where = f"{host}:{port}"
        with self._prober.probe(host, port) as probe:
            login = f"login by {self._prober.options['sasl_mechanism']}"
            steps: list[tuple[str, Callable[[], Any], bool]] = [
                ("name resolution", lambda: ", ".join(probe.resolve()), True),
                ("TCP connection", probe.connect, True),
                ("TLS handshake", probe.shake_hands, probe.is_secure),
                ("API versions", lambda: f"Kafka {probe.ask_versions()}", True),
                (login, probe.log_in, probe.logs_in),
                ("metadata", probe.ask_metadata, True),
            ]
            for step, action, shown in steps:
                began = time.monotonic()
                try:
                    found = action()
                except Exception as error:
                    took = _ms(began)
                    cause, advice = self._why(probe, step, error, host, port)
                    yield Finding(step, where, Status.FAILED, took, cause=cause, advice=advice)
                    return
                took = _ms(began)
                if step == "metadata":
                    self._let_in(host, port, found)
                    found = f"cluster {found.get('cluster_id')}, {len(found['brokers'])} brokers"
                if shown:
                    yield Finding(step, where, Status.OK, took, found=found or "")

    def _let_in(self, host: str, port: int, metadata: dict[str, Any]) -> None:
        if self.metadata is None:
            self.metadata, self._entrance = metadata, (host, port)

    def _why(self, probe: Probe, step: str, error: Exception, host: str, port: int) -> tuple[str, str]:
        refusal = probe.explain(error)
        return second_look(self._prober, probe, step, refusal, host, port) or (refusal.cause, refusal.advice)

    # -- the brokers ---------------------------------------------------------------------------------------------------

    def look_at_brokers(self) -> Iterator[Finding]:
        """Clients connect to the addresses that brokers advertise, whatever they have bootstrapped from."""
        assert self.metadata is not None
        brokers = sorted(self.metadata["brokers"], key=lambda each: each["node_id"])
        if not brokers:
            yield Finding(
                "advertised listener",
                "",
                Status.FAILED,
                None,
                cause="the cluster names no brokers",
                advice="Wait until it has started, and look at the log of its controller",
            )
        with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="pooledkafka-doctor") as threads:
            yield from threads.map(self._advertised, brokers)

    def _advertised(self, broker: Mapping[str, Any]) -> Finding:
        node_id, host, port = broker["node_id"], broker["host"], broker["port"]
        step, where = "advertised listener", f"broker {node_id} at {host}:{port}"
        began = time.monotonic()
        with self._prober.probe(host, port) as probe:
            at = "name resolution"
            try:
                found = ", ".join(probe.resolve())
                at = "TCP connection"
                probe.connect()
                at = "TLS handshake"
                probe.shake_hands()
            except Exception as error:
                took = _ms(began)
                cause, advice = self._why(probe, at, error, host, port)
                if at != "TLS handshake":
                    cause = f"the broker advertises an address that cannot be reached from here: {cause}"
                    advice = (
                        "Clients connect to what brokers advertise, not to bootstrap_servers. Set the broker's "
                        f"advertised.listeners to a name and port that this machine can reach, or make {host}:{port} "
                        "reachable (DNS, firewall, port mapping)"
                    )
                return Finding(step, where, Status.FAILED, took, cause=cause, advice=advice)
        self.reachable[node_id] = host, port  # one atomic step, from any of the threads
        return Finding(step, where, Status.OK, _ms(began), found=found if found != host else "")

    # -- a topic -------------------------------------------------------------------------------------------------------

    def look_at_topic(self, topic: str) -> Iterator[Finding]:
        """Whether it can be described, and read."""
        began = time.monotonic()
        try:
            with self._opened(*self._entrance) as probe:
                began = time.monotonic()
                (described,) = probe.ask_metadata([topic])["topics"]
        except Exception as error:
            yield Finding("topic", topic, Status.FAILED, _ms(began), *advice_on(error, f"topic {topic!r}"))
            return
        took = _ms(began)
        if described["error_code"]:
            refused = for_code(described["error_code"])()
            yield Finding("topic", topic, Status.FAILED, took, *advice_on(refused, f"topic {topic!r}"))
            return
        self.topic_is_there = True
        leaders = {each["partition_index"]: each["leader_id"] for each in described["partitions"]}
        headless = sorted(partition for partition, leader in leaders.items() if leader < 0)
        if headless:
            yield Finding(
                "topic",
                topic,
                Status.FAILED,
                took,
                cause=f"partitions without a leader: {', '.join(map(str, headless))}",
                advice="Start the brokers that have their replicas",
            )
        else:
            yield Finding("topic", topic, Status.OK, took, found=f"{len(leaders)} partitions, all with a leader")
        led = [(partition, leader) for partition, leader in sorted(leaders.items()) if leader in self.reachable]
        if led:
            yield self._fetch(topic, *led[0])
        else:
            yield Finding("fetch", topic, Status.SKIPPED, None, cause="no leader of the topic can be reached")

    def _fetch(self, topic: str, partition: int, leader: int) -> Finding:
        where = f"{topic}[{partition}] on broker {leader}"
        began = time.monotonic()
        try:
            with self._opened(*self.reachable[leader]) as probe:
                end = probe.ask_end(topic, partition)
                began = time.monotonic()
                size = probe.fetch(topic, partition, max(0, end - 1))
        except Exception as error:
            return Finding("fetch", where, Status.FAILED, _ms(began), *advice_on(error, f"topic {topic!r}"))
        found = f"{size} bytes of the last batch" if size else "answered; there are no records at the end"
        return Finding("fetch", where, Status.OK, _ms(began), found=found)

    def _opened(self, host: str, port: int) -> Probe:
        probe = self._prober.probe(host, port)
        try:
            for step in (probe.connect, probe.shake_hands, probe.ask_versions, probe.log_in):
                step()
        except BaseException:
            with suppress(Exception):
                probe.__exit__(None, None, None)
            raise
        return probe


def _ms(began: float) -> float:
    return (time.monotonic() - began) * 1000
