"""Topics for tests."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from contextlib import suppress

from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError

from ._cluster import Cluster
from ._errors import ClusterError
from ._readiness import NoAnswerError, view_of, wait_for

_READY_TIMEOUT_S = 30.0
_DELETE_TIMEOUT_MS = 5_000
_READABLE_LENGTH = 100  # of the 249 characters that a topic's name may have


class TopicFactory:
    """Makes topics on one cluster, and remembers them. For one thread.

    Each call connects an admin client of its own: none is left running beside the test.
    """

    def __init__(self, cluster: Cluster, test: str) -> None:
        """Make topics on `cluster` whose names begin with `test`. Nothing is made yet."""
        self.cluster = cluster
        self._test = test
        self._names: list[str] = []

    def __call__(
        self, partitions: int = 1, *, replication_factor: int | None = None, config: Mapping[str, str] | None = None
    ) -> str:
        """Create a topic; return its name when every broker knows a leader for each of its partitions.

        Args:
            partitions: how many.
            replication_factor: None for the cluster's default.
            config: the topic's own settings, such as `{"max.message.bytes": "2000000"}`; an embedded cluster knows few.

        Raises:
            kafka.errors.KafkaError: the cluster refuses, for example with InvalidReplicationFactorError.
            ClusterError: a broker still does not know the topic after 30 s.

        Example:
            >>> name = kafka_topic_factory(partitions=6, config={"max.message.bytes": "2000000"})  # doctest: +SKIP
        """
        name = _topic_name(self._test)
        topic = {
            "num_partitions": partitions,
            "replication_factor": -1 if replication_factor is None else replication_factor,
            "configs": dict(config or {}),
        }
        with KafkaAdminClient(**self.cluster.client_options()) as admin:
            self._names.append(name)
            admin.create_topics({name: topic})
        if found := wait_for(lambda: self._problem(name, partitions), _READY_TIMEOUT_S):
            raise ClusterError(f"the topic {name} was created but is not ready after {_READY_TIMEOUT_S:g} s: {found}")
        return name

    def delete_all(self) -> None:
        """Delete what was made, as far as it is still there and the cluster answers."""
        names, self._names = self._names, []
        with suppress(KafkaError):
            if names:
                options = {"request_timeout_ms": _DELETE_TIMEOUT_MS, "bootstrap_timeout_ms": _DELETE_TIMEOUT_MS}
                with KafkaAdminClient(**self.cluster.client_options(), **options) as admin:
                    admin.delete_topics(names, raise_errors=False)

    def _problem(self, name: str, partitions: int) -> str | None:
        for node_id in self.cluster.node_ids:
            host, _, port = self.cluster.address_of(node_id).rpartition(":")
            try:
                known = view_of((host, int(port))).partitions
            except NoAnswerError as error:
                return f"broker {node_id}: {error}"
            for index in range(partitions):
                leader, _, replicas, _ = known.get((name, index), (-1, -1, frozenset(), frozenset()))
                if leader not in replicas:
                    return f"broker {node_id} knows no leader of partition {index}"
        return None


def _topic_name(test: str) -> str:
    """Unique over tests, workers and runs on one cluster, and readable in its tools.

    Not with a dot, as `test_a[1.5]` has: Kafka refuses names that differ only in dots and underscores.
    """
    readable = re.sub(r"[^A-Za-z0-9_-]+", "-", test).strip("-")[:_READABLE_LENGTH]
    return f"{readable or 'test'}-{uuid.uuid4().hex[:12]}"
