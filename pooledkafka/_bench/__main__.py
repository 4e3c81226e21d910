"""A process for one measurement: its task comes by stdin, since options may be secret; the outcome goes to stdout."""

from __future__ import annotations

import json
import sys

from kafka.errors import KafkaError

from pooledkafka._bench.cases import Task, measure

if __name__ == "__main__":
    try:
        sys.stdout.write(json.dumps(measure(Task(**json.load(sys.stdin)))))
    except (KafkaError, TimeoutError) as error:
        sys.exit(f"{error or repr(error)}")
