"""Every metric there is: its name, labels and meaning."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

__all__ = ["FAMILIES", "Family", "Kind"]


class Kind(Enum):
    """How a metric behaves, and how those of several processes become one."""

    SUMMED = "gauge, summed over the processes"
    GREATEST = "gauge, the greatest of the processes"
    COUNTER = "counter"
    HISTOGRAM = "histogram"


@dataclass(frozen=True)
class Family:
    """A metric; ``labels`` are those after ``pool``. Counters end with ``_total``, which Prometheus' library adds."""

    name: str
    kind: Kind
    labels: tuple[str, ...]
    help: str

    @property
    def full_name(self) -> str:
        return f"pooledkafka_{self.name}"

    @property
    def all_labels(self) -> tuple[str, ...]:
        return ("pool", *self.labels)


FAMILIES = {
    family.name: family
    for family in (
        Family("clients", Kind.SUMMED, ("kind",), "Clients that are attached now."),
        Family("connections", Kind.SUMMED, ("broker", "lane"), "Open connections."),
        Family("connections_created", Kind.COUNTER, ("broker", "lane"), "Connections that became ready."),
        Family(
            "connections_closed", Kind.COUNTER, ("broker", "lane", "reason"), "Connections that have ended, and why."
        ),
        Family("connections_failed", Kind.COUNTER, ("broker", "lane"), "Connections that could not be opened."),
        Family("sent_bytes", Kind.COUNTER, ("broker", "lane"), "Bytes written to brokers, before TLS."),
        Family("received_bytes", Kind.COUNTER, ("broker", "lane"), "Bytes read from brokers, after TLS."),
        Family("requests_in_flight", Kind.SUMMED, (), "Requests sent and not yet answered."),
        Family("requests_waiting", Kind.SUMMED, ("reason",), "Requests that wait until they may be sent."),
        Family("request_waits", Kind.COUNTER, ("reason",), "Requests that had to wait before they could be sent."),
        Family("request_wait_seconds", Kind.COUNTER, ("reason",), "How long they have waited, all together."),
        Family("requests_resent", Kind.COUNTER, (), "Requests sent again since another one ended their connection."),
        Family("request_duration_seconds", Kind.HISTOGRAM, ("api",), "Time from a request to its answer."),
        Family("request_errors", Kind.COUNTER, ("api", "error"), "Requests that were sent and got no answer."),
        Family("throttles", Kind.COUNTER, ("broker",), "How often a broker asked for a pause because of a quota."),
        Family("throttle_seconds", Kind.COUNTER, ("broker",), "For how long they asked, all together."),
        Family("wire_fetches", Kind.COUNTER, (), "Fetch requests sent to brokers."),
        Family("logical_fetches", Kind.COUNTER, (), "Fetch requests of consumers that these answered."),
        Family("read_ahead_bytes", Kind.SUMMED, (), "Bytes read and not yet taken by all who are to have them."),
        Family("consumed_records", Kind.COUNTER, ("group", "topic"), "Records that consumers have taken."),
        Family("produced_records", Kind.COUNTER, ("topic",), "Records that brokers have acknowledged."),
        Family("failed_records", Kind.COUNTER, ("topic",), "Records that could not be delivered."),
        Family(
            "consumer_lag_records",
            Kind.GREATEST,
            ("group", "topic", "partition"),
            "Records between a consumer's position and the end of the log, as far as the pool has heard of it.",
        ),
        Family("consumer_poll_age_seconds", Kind.GREATEST, ("group",), "Time since a poll of the slowest consumer."),
        Family("metadata_age_seconds", Kind.GREATEST, (), "Time since the cluster's metadata was refreshed."),
    )
}
