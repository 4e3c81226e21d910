"""Makes one measurement in this process: ``python -m benchmarks.measuring '<the case as JSON>'`` prints the figures.

Each measurement has such a process, so that nothing of one is left in another.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from benchmarks.cases import Case
from benchmarks.clients import ClientsCase
from benchmarks.consume import ConsumeCase
from benchmarks.filling import FillCase
from benchmarks.groups import GroupsCase
from benchmarks.latency import LatencyCase
from benchmarks.libraries import made
from benchmarks.partitions import PartitionsCase
from benchmarks.produce import ProduceCase
from benchmarks.reading import NothingCameError
from benchmarks.waiting import WaitingCase

__all__ = ["NOTHING_CAME", "case_of"]

NOTHING_CAME = 3
"""How this process ends when a consumer was left without anything, as stock kafka-python's are now and then."""

CASES: dict[str, type[Case]] = {
    case.benchmark: case
    for case in (
        ClientsCase,
        ConsumeCase,
        FillCase,
        GroupsCase,
        LatencyCase,
        PartitionsCase,
        ProduceCase,
        WaitingCase,
    )
}


def case_of(given: dict[str, Any]) -> Case:
    return CASES[given["benchmark"]](**{name: value for name, value in given.items() if name != "benchmark"})


def main() -> int:
    case = case_of(json.loads(sys.argv[1]))
    library = made(case.library, case.bootstrap)
    try:
        figures = case.measure(library)
    except NothingCameError as error:
        print(error, file=sys.stderr, flush=True)
        return NOTHING_CAME
    library.close()
    print(json.dumps(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
