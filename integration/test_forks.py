"""Forks while other threads use the pool in every way."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from typing import Any

from kafka.structs import TopicPartition

from integration.logs import plain_log

FORKS = 50

OF_DISCONNECTS = re.compile(r"the pool was disconnected|Metadata refresh: failed Cancelled")
"""What kafka-python logs as errors when a pool is disconnected while it has requests in flight."""


def test_forks_of_a_busy_parent(
    kafka_bootstrap_servers: str,
    kafka_topic_factory: Callable[..., str],
    record_property: Callable[[str, Any], None],
) -> None:
    topic = kafka_topic_factory(partitions=3)
    done = subprocess.run(
        [
            # Python 3.12 warns of what is done here on purpose.
            *(sys.executable, "-W", "ignore:This process:DeprecationWarning", "-m", "integration.busy_parent"),
            *(kafka_bootstrap_servers, topic, "--forks", str(FORKS)),
        ],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    complaints = [line for line in done.stderr.splitlines() if not OF_DISCONNECTS.search(line)]
    assert (done.returncode, complaints) == (0, []), done.stderr
    told = json.loads(done.stdout)
    assert told["errors"] == []
    assert told["statuses"] == [0] * FORKS
    assert all(told["rounds"].values())
    log = plain_log(kafka_bootstrap_servers, [TopicPartition(topic, number) for number in range(3)])
    values = Counter(entry[3].decode() for entries in log.values() for entry in entries)
    acked = told["parent"] + [value for child in told["children"] for value in child["acked"]]
    assert values == Counter(acked), "each acknowledged record is there once, and nothing else"
    # One that the parent was just opening or closing may have been inherited, and ends when the parent shuts it down.
    inherited = [port for child in told["children"] for port in child["inherited"]]
    assert not set(inherited) & set(told["lasting"])
    assert told["kept"], "the parent has connections"
    assert all(told["kept"]), "the parent goes on with the connections that it had"
    assert told["left"] == []
    most = max(child["most"] for child in told["children"])
    assert most <= 4
    record_property("forks", FORKS)
    record_property("acknowledged in the parent", len(told["parent"]))
    record_property("acknowledged in the children", len(acked) - len(told["parent"]))
    record_property("in the log", values.total())
    record_property("connections of the parent kept", f"{sum(told['kept'])} of {len(told['kept'])}")
    record_property("inherited while they were opened or closed", len(inherited))
    record_property("most connections of a child to a broker", most)
