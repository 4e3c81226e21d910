"""The broker properties that the embedded cluster heeds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace

__all__ = ["RACK_AWARE_SELECTOR", "Settings"]

# What the controller says, or what a topic's leader says wherever it is.
_THE_SAME_FOR_ALL = {
    "default.replication.factor",
    "min.insync.replicas",
    "num.partitions",
    "replica.lag.time.max.ms",
    "unclean.leader.election.enable",
}
_AT_LEAST_ONE = {
    "default.replication.factor",
    "group.max.size",
    "min.insync.replicas",
    "num.partitions",
    "socket.request.max.bytes",
    "transaction.max.timeout.ms",
}
RACK_AWARE_SELECTOR = "org.apache.kafka.common.replica.RackAwareReplicaSelector"
_MECHANISMS = {"PLAIN", "OAUTHBEARER"}
_REPLICA_SELECTORS = ("", "org.apache.kafka.common.replica.LeaderSelector", RACK_AWARE_SELECTOR)


@dataclass(frozen=True)
class Settings:
    """What one broker's properties say. A field is the property of that name, with dots; units as in Kafka.

    Defaults are Kafka's, except where that would make tests wait (``group.initial.rebalance.delay.ms``,
    ``broker.session.timeout.ms``) and where `KafkaCluster` sets them too.
    """

    auto_create_topics_enable: bool = True
    broker_rack: str = ""
    broker_session_timeout_ms: int = 0
    """How long after a broker went down or silent its partitions get other leaders."""
    connections_max_idle_ms: int = 600_000
    connections_max_reauth_ms: int = 0
    """How long a session lasts after a login (KIP-368); 0: for ever."""
    default_replication_factor: int = 1
    group_initial_rebalance_delay_ms: int = 0
    group_max_session_timeout_ms: int = 1_800_000
    group_max_size: int = 2_147_483_647
    group_min_session_timeout_ms: int = 6_000
    max_connections_per_ip: int = 2_147_483_647
    max_incremental_fetch_session_cache_slots: int = 1_000
    message_max_bytes: int = 1_048_588
    min_insync_replicas: int = 1
    num_partitions: int = 1
    offset_metadata_max_bytes: int = 4_096
    replica_lag_time_max_ms: int = 30_000
    replica_selector_class: str = ""
    sasl_enabled_mechanisms: str = "PLAIN"
    """Of all SASL listeners: PLAIN, OAUTHBEARER (with unsecured tokens, as Kafka's own validator), or both."""
    socket_request_max_bytes: int = 104_857_600
    transaction_max_timeout_ms: int = 900_000
    unclean_leader_election_enable: bool = False

    @classmethod
    def property_names(cls) -> list[str]:
        """All properties there are, as Kafka spells them."""
        return [field.name.replace("_", ".") for field in fields(cls)]

    @classmethod
    def kind_of(cls, name: str) -> type:
        """What the values of a property are: bool, int or str."""
        return type(getattr(cls, name.replace(".", "_")))

    def value_of(self, name: str) -> str | None:
        """The value of a property as server.properties would have it; None: it has none."""
        value = getattr(self, name.replace(".", "_"))
        return str(value).lower() if isinstance(value, bool) else str(value) or None

    def with_properties(self, properties: Mapping[str, str], *, of_one_broker: bool = False) -> Settings:
        """These settings, changed as the properties say. Raises ValueError for one that is unknown or malformed, or
        that is the cluster's where it is for one broker.
        """
        known = {field.name.replace("_", "."): field for field in fields(self)}
        changed: dict[str, object] = {}
        for name, value in properties.items():
            if name not in known:
                raise ValueError(
                    f"the embedded cluster has no property {name!r}; it knows {', '.join(known)}. "
                    f"For another, run the test on real Kafka: KafkaCluster"
                )
            if of_one_broker and name in _THE_SAME_FOR_ALL:
                raise ValueError(f"{name} is the same for all brokers; it belongs into config, not into broker_config")
            field = known[name]
            changed[field.name] = _parsed(name, value, str(field.type))
        return replace(self, **changed)  # type: ignore[arg-type]


def _parsed(name: str, value: str, kind: str) -> object:
    if not isinstance(value, str):
        raise ValueError(f"{name} is {value!r}; expected a string, as in server.properties")
    if kind == "bool":
        if value not in ("true", "false"):
            raise ValueError(f"{name} is {value!r}; expected 'true' or 'false'")
        return value == "true"
    if kind == "int":
        lowest = 1 if name in _AT_LEAST_ONE else 0
        try:
            number = int(value)
        except ValueError:
            number = -1
        if not lowest <= number < 2**31:
            raise ValueError(f"{name} is {value!r}; expected a whole number from {lowest} on")
        return number
    if name == "sasl.enabled.mechanisms" and not _MECHANISMS.issuperset(value.split(",")):
        raise ValueError(f"{name} is {value!r}; expected some of {', '.join(sorted(_MECHANISMS))}")
    if name == "replica.selector.class" and value not in _REPLICA_SELECTORS:
        raise ValueError(f"{name} is {value!r}; expected one of {', '.join(map(repr, _REPLICA_SELECTORS))}")
    return value
