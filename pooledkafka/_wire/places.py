"""Where a consumer's partitions are to be fetched, and from which offsets."""

from __future__ import annotations

from typing import Any, NamedTuple

from kafka.structs import TopicPartition

from pooledkafka._fetch import Position
from pooledkafka._wire.fetching import ConsumerFetch

__all__ = ["Places", "Wanted"]

Wanted = dict[Any, dict[TopicPartition, Position]]
"""By the node to fetch from; None or -1 where there is no leader."""


class _Place(NamedTuple):
    """Holds while the consumer's position and what the metadata says of the leader are the same."""

    position: Any
    leader_id: int
    leader_epoch: int
    node_id: Any
    asks: Position


class Places:
    """Looks over the partitions of one consumer, in place of its fetcher and with the same result.

    kafka-python's fetcher goes through all partitions several times in each pass, with some ten calls for each, and
    makes a request of them on the I/O thread: for ten thousand that takes a good part of a second, in which nobody
    else's heartbeats and fetches are served. Here what was found of a partition is kept until its position or its
    leader changes.

    For the polling thread, and for the I/O thread while that waits for it.
    """

    def __init__(self, consumer: Any, cluster: Any) -> None:
        self._subscription = consumer._subscription
        self._fetcher = consumer._fetcher
        self._manager = consumer._fetcher._manager
        self._cluster = cluster
        self._known: dict[TopicPartition, _Place] = {}
        self.unsettled = False  # some partition has no valid position yet, or is about to be taken away

    def look(self) -> Wanted:
        """What is to be fetched now, whether or not it is on its way; raises KeyError if a partition went meanwhile.

        Without a group, new metadata may take one away at any moment.
        """
        fetcher, known = self._fetcher, self._known
        states = dict(self._subscription.assignment)
        if len(known) > 2 * len(states) + 100:
            known.clear()
        buffered = {fetch.topic_partition for fetch in fetcher._completed_fetches.copy()}
        if reading := fetcher._next_partition_records:
            buffered.add(reading.topic_partition)
        buffered.update(fetcher._paused_completed_fetches, fetcher._paused_partition_records)
        topics = self._cluster._partitions
        wanted: Wanted = {}
        unsettled = False
        nowhere: dict[Any, Any] = {}
        for partition, state in states.items():
            position = state._position
            if position is None or state._awaiting_validation:
                unsettled = True
                continue
            unsettled = unsettled or state._pending_revocation
            leader = topics.get(partition.topic, nowhere).get(partition.partition)
            place = known.get(partition)
            if (
                place is None
                or place.position is not position
                or leader is None
                or place.leader_id != leader.leader_id
                or place.leader_epoch != leader.leader_epoch
                or state._preferred_read_replica is not None
            ):
                place = self._find(partition, position)
                if state._awaiting_validation:
                    unsettled = True
                    continue
            if state.paused or partition in buffered or state._pending_revocation:
                continue
            try:
                wanted[place.node_id][partition] = place.asks
            except KeyError:
                wanted[place.node_id] = {partition: place.asks}
        self.unsettled = unsettled
        return wanted

    def validate(self) -> None:
        """In place of the fetcher's ``maybe_validate_positions``: a look does that where something has changed."""
        try:
            self.look()
        except KeyError:
            pass  # a partition went; the next look sees the others

    def _find(self, partition: TopicPartition, position: Any) -> _Place:
        cluster = self._cluster
        epoch = cluster.leader_epoch_for_partition(partition)
        self._subscription.maybe_validate_position_for_current_leader(partition, epoch)
        node_id = self._fetcher._select_read_replica(partition)
        epoch = -1 if epoch is None else epoch
        size = self._fetcher.config["max_partition_fetch_bytes"]
        asks = Position(position.offset, epoch, position.leader_epoch, size)
        before = self._known.get(partition)
        if before is not None and before.asks == asks:
            asks = before.asks  # the same object is the same at a glance
        leader_id = cluster.leader_for_partition(partition)
        place = _Place(position, leader_id, epoch, node_id, asks)
        if node_id == leader_id:
            self._known[partition] = place
        else:
            self._known.pop(partition, None)  # a preferred replica may cease to be that at any time
        return place

    def requests(self) -> dict[int, tuple[ConsumerFetch, Offsets]]:
        """The fetches to send now, in place of the fetcher's ``_create_fetch_requests``; on the I/O thread."""
        fetcher, config = self._fetcher, self._fetcher.config
        requests = {}
        for node_id, partitions in self.look().items():
            if node_id is None or node_id == -1:
                self._cluster.request_update()
            elif node_id not in fetcher._nodes_with_pending_fetch_requests and not (
                self._manager.connection_delay(node_id) > 0
            ):
                fetch = ConsumerFetch(
                    partitions,
                    isolation_level=int(fetcher._isolation_level),
                    rack_id=config["client_rack"],
                    max_wait_ms=config["fetch_max_wait_ms"],
                    min_bytes=config["fetch_min_bytes"],
                    max_bytes=config["fetch_max_bytes"],
                )
                requests[node_id] = (fetch, Offsets(partitions))
        return requests


class Offsets:
    """The offsets that were asked for, as the fetcher looks them up for each partition that is answered."""

    def __init__(self, partitions: dict[TopicPartition, Position]) -> None:
        self._partitions = partitions

    def __getitem__(self, partition: TopicPartition) -> int:
        return self._partitions[partition].fetch_offset
