"""What must hold of a server, whichever it is, and of the log that it has left."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from kafka.structs import TopicPartition

from integration.clients import eventually
from integration.logs import plain_log
from integration.servers.running import Load, Server

__all__ = ["PARTITIONS", "check_log", "check_workers", "settled_connections"]

PARTITIONS = 6


def check_workers(server: Server, count: int, *, in_master: bool) -> None:
    """Every worker uses the pool and refuses what is another process's."""
    for pid, found in server.ask_each_worker("/inherited", count).items():
        refusal = rf"ForkedClientError: .* was made by process {found['imported_by']}"
        if pid != found["imported_by"]:
            assert re.match(refusal, found["consumer"])
        if in_master:
            assert re.match(refusal, found["client"])
            # A worker that was forked later may have inherited a future that is done.
            assert found["future"] == "used" or re.match(refusal, found["future"])
        assert found["admin"] == "used"
    eventually(lambda: server.ask("/read")["read"], 60, "a consumer that a worker has made reads")
    if in_master:
        assert server.connections()[server.process.pid] > 0, "the master's are still there"


def settled_connections(server: Server) -> int:
    """The most connections that any process holds to a broker, when that is no more than the pool promises."""

    # One more is lent to a consumer that has just joined its group, and closed after five idle seconds.
    def few() -> int:
        most = max(server.connections().values())
        return most if most <= 4 else 0

    found: int = eventually(few, 30, "every process keeps to four connections to a broker")
    return found


def check_log(
    bootstrap_servers: str, topic: str, server: Server, loads: list[Load], *, sent_as: Callable[[str], str] = str
) -> dict[str, Any]:
    """Every acknowledged record is in the log once, no other twice; returns figures.

    ``sent_as`` finds in a record's value what the load asked for.
    """
    log = plain_log(bootstrap_servers, [TopicPartition(topic, number) for number in range(PARTITIONS)])
    values = Counter(sent_as(entry[3].decode()) for entries in log.values() for entry in entries)
    assert not (twice := [value for value, count in values.items() if count > 1]), f"sent twice: {twice}"
    acked = [value for load in loads for value in load.acked]
    unknown = {value for load in loads for value in load.unknown}
    in_master = server.acked_in_master()
    assert not (lost := {*acked, *in_master} - values.keys()), f"acknowledged and lost: {lost}"
    # What is left was sent at import, or in a life that ended before it could write down what was acknowledged.
    rest = [value.split("-") for value in values.keys() - set(acked) - set(in_master) - unknown]
    assert all(kind in ("import", "master", "lingering") for kind, *_ in rest), rest
    unwritten = Counter(life for kind, life, *_ in rest if kind == "master")
    assert max(unwritten.values(), default=0) <= 1, unwritten
    return {
        "acknowledged": len(acked),
        "acknowledged in masters": len(in_master),
        "in the log": len(values),
        "requests that failed": len(unknown),
    }
