"""Carries out plans: every measurement in a process of its own, the libraries in turns, for several rounds."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from benchmarks.cases import Brokers, Case, Plan, Result, Topic, WrongCountError
from benchmarks.filling import FillCase
from benchmarks.latency import LatencyCase
from benchmarks.libraries import LIBRARIES, missing, version_of
from benchmarks.measuring import NOTHING_CAME

__all__ = ["MeasurementError", "Run", "about_s", "in_turns", "machine", "read", "taken_together"]

ROOT = Path(__file__).parent.parent
ATTEMPTS = 5
MEASURED_WITHIN_S = 900


class MeasurementError(Exception):
    """A process that was to measure has failed."""


def in_turns(cases: list[Case], libraries: list[str], rounds: int) -> Iterator[tuple[int, Case]]:
    """Every case with every library, in every round; none is always the first, nor always after the same other.

    The libraries are measured one right after another in each case, so that a ratio compares what was much the same.
    """
    for number in range(rounds):
        for position, case in enumerate(cases if number % 2 == 0 else reversed(cases)):
            turn = (number + position) % len(libraries)
            for library in libraries[turn:] + libraries[:turn]:
                for measured in case.of(library):
                    yield number, measured


def about_s(plan: Plan, libraries: list[str], rounds: int) -> float:
    """How long a plan takes, roughly."""
    each = sum(case.about_s() + 1 for _, case in in_turns(plan.cases, libraries, 1))
    return rounds * each + sum(FillCase(**_filling(topic)).about_s() for topic in plan.topics if topic.fill)


def _filling(topic: Topic) -> dict[str, Any]:
    assert topic.fill is not None
    fill = topic.fill
    return {
        "topic": topic.name,
        "partitions": topic.partitions,
        "records": fill.records,
        "size": fill.size,
        "codec": fill.codec,
    }


@dataclass
class Run:
    """All that is measured by one command."""

    brokers: Brokers
    bootstrap: str
    libraries: list[str]
    rounds: int
    settings: dict[str, Any]
    machine: str
    file: Path | None = None
    say: Callable[[str], None] = lambda line: print(line, file=sys.stderr, flush=True)
    results: list[Result] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    """Measurements that could not be made, or whose counts were wrong; of those there are no figures."""

    def carry_out(self, plan: Plan) -> None:
        with self._topics(plan.topics):
            for number, case in in_turns(plan.cases, self.libraries, self.rounds):
                self.say(f"round {number + 1} of {self.rounds}: {case}")
                try:
                    self.results.append({"round": number, **self.measured(case)})
                except (MeasurementError, WrongCountError) as error:  # the others' figures are right all the same
                    self.failures.append(f"round {number + 1}, {case}: {error}")
                    self.say(self.failures[-1])
                if self.file is not None:
                    self.file.write_text(json.dumps(self.measurements, indent=1))

    def warm_up(self, name: str, seconds: float) -> None:
        """Brokers that have just started answer slowly at first; without this the first to be measured would suffer."""
        topic = Topic(f"{name}-warm-up", 6)
        with self._topics([topic]):
            for library in self.libraries:
                self.say(f"to warm up: {library}")
                case = LatencyCase(topic=topic.name, partitions=6, rate=150, size=1_000, load_s=seconds)
                self.measured(replace(case, library=library))

    @property
    def measurements(self) -> dict[str, Any]:
        return {
            "machine": self.machine,
            "settings": self.settings,
            "results": self.results,
            "failures": self.failures,
        }

    @contextmanager
    def _topics(self, topics: list[Topic]) -> Iterator[None]:
        created: list[str] = []
        try:
            for topic in topics:
                self.brokers.create([topic])
                created.append(topic.name)
                if topic.fill is not None:
                    self.say(f"filling {topic.name} with {topic.fill.records} records")
                    quick = "confluent-kafka" if not missing("confluent-kafka") else "pooledkafka"
                    self.measured(FillCase(library=quick, **_filling(topic)))
                    in_log = sum(self.brokers.ends(topic.name))
                    if in_log != topic.fill.records:
                        raise MeasurementError(f"{topic.name} has {in_log} records, not {topic.fill.records}")
            yield
        finally:
            self.brokers.delete(created)

    def measured(self, case: Case) -> Result:
        """What a process of its own measures; again where a consumer was left without anything."""
        for attempt in range(1, ATTEMPTS + 1):
            with case.prepared(self.brokers) as prepared:
                done = in_a_process(replace(prepared, bootstrap=self.bootstrap))
                if done.returncode == NOTHING_CAME:
                    self.say(f"again, since {done.stderr.strip()}")
                    continue
                if done.returncode:
                    raise MeasurementError(done.stderr[-4000:].strip())
                figures: Result = json.loads(done.stdout.splitlines()[-1])
                prepared.check(figures, self.brokers)
                return {**case.what(), **figures, "attempts": attempt}
        raise MeasurementError(f"{ATTEMPTS} times: {done.stderr.strip()}")


def in_a_process(case: Case) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks.measuring", json.dumps(case.as_plain_values())]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=MEASURED_WITHIN_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise MeasurementError(f"nothing was measured within {MEASURED_WITHIN_S} s") from error


def machine(brokers: Any) -> str:
    """On what it was measured."""
    versions = ", ".join(f"{name} {version_of(name)}" for name in LIBRARIES if not missing(name))
    python = platform.python_version()
    return f"{os.cpu_count()} cores, {platform.system()}, Python {python}; {brokers}; {versions}"


def read(file: Path) -> dict[str, Any]:
    measured: dict[str, Any] = json.loads(file.read_text())
    return measured


def taken_together(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """What several runs measured, as one run of so many rounds."""
    results: list[Result] = []
    failures: list[str] = []
    machines: dict[str, None] = {}
    for measured in runs:
        machines[measured["machine"]] = None
        failures += measured.get("failures", [])
        first = 1 + max((result["round"] for result in results), default=-1)
        results += [{**result, "round": first + result["round"]} for result in measured["results"]]
    return {"machine": "\n".join(machines), "results": results, "failures": failures}
