"""Which brokers get the replicas of a partition: by choice of the cluster, or of who makes the topic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from kafka.errors import InvalidReplicationAssignmentError, InvalidReplicationFactorError

__all__ = ["check_assignment", "check_factor", "placed"]


def check_factor(factor: int, brokers: Collection[int], available: Collection[int]) -> None:
    """Raise InvalidReplicationFactorError where so many replicas cannot be placed.

    As Kafka's StripedReplicaPlacer: brokers that are down count, as long as one is up.
    """
    if not available:
        problem = "All brokers are currently fenced."
    elif factor > len(brokers):
        problem = (
            f"The target replication factor of {factor} cannot be reached because only {len(brokers)} broker(s) are "
            f"registered."
        )
    else:
        return
    raise InvalidReplicationFactorError(f"Unable to replicate the partition {factor} time(s): {problem}")


def placed(factor: int, first: int, racks: Mapping[int, str], available: Collection[int]) -> list[int]:
    """The brokers for one partition's replicas, the leader first: racks take turns, brokers that are down come last.

    Args:
        factor: how many; `check_factor` has found that there are as many.
        first: a number that goes up with each partition, so that each broker leads its share.
        racks: the rack of each broker there is.
        available: those that are up.
    """
    brokers = list(racks)
    turn = first % len(brokers)
    up = [node_id for node_id in brokers[turn:] + brokers[:turn] if node_id in available]
    of_rack: Counter[str] = Counter()
    rounds = {}
    for node_id in up:
        rounds[node_id] = of_rack[racks[node_id]]
        of_rack[racks[node_id]] += 1
    down = [node_id for node_id in brokers if node_id not in available]
    return [*sorted(up, key=lambda node_id: rounds[node_id]), *down][:factor]


def check_assignment(
    assignment: Sequence[Sequence[int]],
    brokers: Collection[int],
    available: Collection[int],
    factor: int | None = None,
    first_index: int = 0,
) -> None:
    """Raise InvalidReplicationAssignmentError for replicas that cannot be chosen (ReplicationControlManager).

    ``assignment`` has the replicas of each partition from ``first_index`` on, ``factor`` of each, where that is given.
    """
    if not assignment:
        raise InvalidReplicationAssignmentError("The manual partition assignment names no partition.")
    for index, replicas in enumerate(assignment, first_index):
        if not replicas:
            raise InvalidReplicationAssignmentError("The manual partition assignment includes an empty replica list.")
        for node_id, times in sorted(Counter(replicas).items()):
            if node_id not in brokers:
                raise InvalidReplicationAssignmentError(
                    f"The manual partition assignment includes broker {node_id}, but no such broker is registered."
                )
            if times > 1:
                raise InvalidReplicationAssignmentError(
                    f"The manual partition assignment includes the broker {node_id} more than once."
                )
        factor = len(replicas) if factor is None else factor
        if len(replicas) != factor:
            raise InvalidReplicationAssignmentError(
                f"The manual partition assignment includes a partition with {len(replicas)} replica(s), but this is "
                f"not consistent with previous partitions, which have {factor} replica(s)."
            )
        if not set(replicas).intersection(available):
            raise InvalidReplicationAssignmentError(
                f"All brokers specified in the manual partition assignment for partition {index} are fenced or in "
                f"controlled shutdown."
            )
