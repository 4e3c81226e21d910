"""A broker's server.properties."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from ._listeners import KINDS, Listener, listener_properties
from ._ports import HOST

BROKER_PORT = 19092
CONTROLLER_PORT = 19093
# What the cluster itself must decide for its brokers to find each other and clients to find them.
RESERVED = frozenset(
    {
        "advertised.listeners",
        "broker.id",
        "controller.listener.names",
        "controller.quorum.bootstrap.servers",
        "controller.quorum.voters",
        "inter.broker.listener.name",
        "listener.security.protocol.map",
        "listeners",
        "log.dir",
        "log.dirs",
        "node.id",
        "process.roles",
        "security.inter.broker.protocol",
    }
)


def broker_host(node_id: int) -> str:
    """The name under which the other brokers reach this one, on the brokers' network only."""
    return f"kafka-{node_id}"


def checked_config(config: Mapping[str, str] | None) -> dict[str, str]:
    """The user's extra properties. Raises ValueError for one that is not the user's to set, or is no property."""
    checked = dict(config or {})
    for name, value in checked.items():
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9._-]+", name):
            raise ValueError(f"config has the name {name!r}, which is no name of a Kafka property")
        if not isinstance(value, str):
            raise ValueError(f"config[{name!r}] is {value!r}; expected a string, as in server.properties")
    if reserved := sorted(RESERVED & checked.keys()):
        raise ValueError(f"config sets {', '.join(reserved)}, which the cluster sets itself; leave it out")
    return checked


def checked_configs(
    config: Mapping[str, str] | None, broker_config: Mapping[int, Mapping[str, str]] | None, node_ids: Collection[int]
) -> dict[int, dict[str, str]]:
    """Each broker's extra properties. Raises ValueError as `checked_config`, or for a broker that is not there."""
    common = checked_config(config)
    if unknown := sorted(set(broker_config or {}).difference(node_ids), key=str):
        raise ValueError(
            f"broker_config has {unknown[0]!r}, but the node ids are {', '.join(map(str, sorted(node_ids)))}"
        )
    return {node_id: common | checked_config((broker_config or {}).get(node_id)) for node_id in node_ids}


def server_properties(
    node_id: int,
    node_ids: Collection[int],
    ports: Mapping[Listener, int],
    config: Mapping[str, str],
    password: str,
) -> dict[str, str]:
    """All properties of one broker: KRaft, broker and controller in one process; `config` goes over the defaults."""
    brokers = len(node_ids)
    replicas, in_sync = str(brokers), str(min(2, brokers))
    internal = {"BROKER": BROKER_PORT, "CONTROLLER": CONTROLLER_PORT}
    listening = internal | {KINDS[listener].name: KINDS[listener].port for listener in ports}
    advertised = {"BROKER": f"{broker_host(node_id)}:{BROKER_PORT}"}
    advertised.update({KINDS[listener].name: f"{HOST}:{port}" for listener, port in ports.items()})
    protocols = dict.fromkeys(internal, "PLAINTEXT")
    protocols.update({KINDS[listener].name: KINDS[listener].security_protocol for listener in ports})
    return {
        "node.id": str(node_id),
        "process.roles": "broker,controller",
        "controller.listener.names": "CONTROLLER",
        "controller.quorum.voters": ",".join(f"{node}@{broker_host(node)}:{CONTROLLER_PORT}" for node in node_ids),
        "inter.broker.listener.name": "BROKER",
        "listeners": ",".join(f"{name}://:{port}" for name, port in listening.items()),
        "advertised.listeners": ",".join(f"{name}://{address}" for name, address in advertised.items()),
        "listener.security.protocol.map": ",".join(f"{name}:{protocol}" for name, protocol in protocols.items()),
        "log.dirs": "/var/lib/kafka/data",
        "default.replication.factor": replicas,
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": replicas,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync,
        # 50 partitions each by default: the first group of a test would wait for 150 replicas to be made.
        "offsets.topic.num.partitions": "6",
        "transaction.state.log.num.partitions": "6",
        "share.coordinator.state.topic.num.partitions": "6",
        # The first member of a group would wait 3 s for others.
        "group.initial.rebalance.delay.ms": "0",
        # How soon a broker that went silent is fenced, and how soon one that only lags behind a leader leaves the ISR.
        "broker.heartbeat.interval.ms": "1000",
        "broker.session.timeout.ms": "6000",
        "replica.lag.time.max.ms": "10000",
        # A third of the heap by default.
        "log.cleaner.dedupe.buffer.size": "8388608",
        **listener_properties(ports, password),
        **config,
    }


def render(properties: Mapping[str, str]) -> bytes:
    """The properties in the syntax of java.util.Properties."""
    return "".join(f"{name}={_escaped(value)}\n" for name, value in properties.items()).encode("ascii")


def _escaped(value: str) -> str:
    """Java trims leading blanks, takes a backslash for an escape, and reads what is not ASCII as Latin-1."""
    units = value.encode("utf-16-be")
    codes = [int.from_bytes(units[i : i + 2], "big") for i in range(0, len(units), 2)]
    text = "".join(chr(code) if 0x20 <= code < 0x7F and code != 0x5C else f"\\u{code:04x}" for code in codes)
    return "\\" + text if text.startswith(" ") else text
