"""All that can happen to brokers, to 20 consumers and 10 producers over one pool, and to as many of stock kafka-python.

Both live on the same three brokers at the same time, each in a process of its own and on a topic of its own, so they
suffer the same faults. Prints what was lost, repeated or read out of order, and how long clients took to recover; ends
with status 1 where pooledkafka has not kept its promises.

    python -m reliability.broker_faults                          # 15 minutes of faults
    python -m reliability.broker_faults --minutes 5 --seed 7     # other faults, in another order
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Collection
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kafka import KafkaAdminClient

from pooledkafka.testing import Cluster, EmbeddedKafka, KafkaCluster
from reliability.fault_clients import LIBRARIES, PARTITIONS, Case
from reliability.fault_schedule import Kind, Pace, faults
from reliability.fault_stage import HEALTHY_WITHIN_S, Incident, Stage
from reliability.kept_commits import read_commits
from reliability.ledger import Findings, check, read_log
from reliability.recovery import Recovery, recoveries

__all__ = ["Outcome", "Plan", "run"]

ROOT = Path(__file__).parent.parent
_READY_WITHIN_S = 120.0
_END_WITHIN_S = 600.0


@dataclass(frozen=True)
class Plan:
    """What to do. Faults begin until ``seconds`` are over, or ``most_faults`` have been."""

    seed: int
    seconds: float
    libraries: Collection[str] = ("pooledkafka",)
    kinds: Collection[Kind] = tuple(Kind)
    pace: Pace = field(default_factory=Pace)
    most_faults: int | None = None
    last_calm_s: float = 25.0
    """How long the traffic goes on after the last fault: who has not recovered then never does."""
    rate: float = 10.0


@dataclass
class Outcome:
    """What became of one library's clients."""

    library: str
    findings: Findings
    recovery: dict[str, Recovery]
    figures: dict[str, Any] | None
    """What the process itself counted at its end; None where it did not come to that."""
    last_words: str = ""

    def broken_promises(self) -> list[str]:
        """What pooledkafka promises and did not keep, in sentences."""
        broken = [
            f"{len(found)} x {what}: {'; '.join(found[:3])}" for what, found in self.findings.broken.items() if found
        ]
        if not self.findings.acknowledged:
            broken.append("nothing was acknowledged")
        if "all" in self.recovery and self.recovery["all"].never:
            broken.append(f"{self.recovery['all'].never} times a client did not recover from a fault")
        if self.figures is None:
            return [*broken, f"the clients did not end in order: {self.last_words}"]
        if self.figures["unended_clients"]:
            broken.append(f"{self.figures['unended_clients']} clients could not be ended")
        if "error_at_the_end" in self.figures:
            broken.append(f"the pool could not be disconnected in order: {self.figures['error_at_the_end']}")
        if not self.figures["caught_up"]:
            broken.append("the groups did not catch up")
        if self.figures["sockets_left"] or self.figures["threads_left"]:
            broken.append(
                f"{self.figures['sockets_left']} sockets and {self.figures['threads_left']} threads were left: "
                f"{self.figures['names_of_threads_left']}"
            )
        return broken


class Clients:
    """One library's process."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self._ready = threading.Event()
        with Path(case.directory, "stderr.txt").open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "reliability.fault_clients", json.dumps(asdict(case))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                text=True,
            )
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for _ in lines:
                self._ready.set()
        self._ready.set()

    def wait_until_ready(self) -> None:
        if not self._ready.wait(_READY_WITHIN_S) or self._process.poll() is not None:
            raise RuntimeError(f"the clients of {self.case.library} did not start: {self.last_words()}")

    def tell_to_stop(self) -> None:
        assert self._process.stdin is not None
        if self._process.poll() is None:
            self._process.stdin.write("stop\n")
            self._process.stdin.flush()

    def figures(self) -> dict[str, Any] | None:
        """Wait until it has ended."""
        try:
            status = self._process.wait(_END_WITHIN_S)
        except subprocess.TimeoutExpired:
            return None
        file = Path(self.case.directory, "figures.json")
        if status or not file.exists():
            return None
        figures: dict[str, Any] = json.loads(file.read_text())
        return figures

    def last_words(self) -> str:
        """How it ended, and the end of what it said."""
        texts = [Path(self.case.directory, name) for name in ("stderr.txt", "threads.txt")]
        said = "\n".join(text.read_text()[-3000:] for text in texts if text.exists())
        return f"status {self._process.poll()}\n{said}"

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()


def run(cluster: Cluster, plan: Plan, directory: Path) -> tuple[list[Incident], list[Outcome]]:
    """Let the libraries' clients live through the plan's faults, and look at what they wrote down."""
    name = f"faults-{uuid.uuid4().hex[:8]}"
    topics = {library: f"{name}-{library}" for library in plan.libraries}
    with KafkaAdminClient(**cluster.client_options()) as admin:
        admin.create_topics({topic: {"num_partitions": PARTITIONS} for topic in topics.values()})
    cluster.wait_until_healthy(HEALTHY_WITHIN_S)
    stage = Stage(cluster, list(topics.values()), directory / "incidents.jsonl")
    if isinstance(cluster, KafkaCluster):  # an embedded one has no choice
        stage.arrange()
    at_most_s = 2 * plan.seconds + 900
    with ExitStack() as stack:
        clients = {}
        for library, topic in topics.items():
            (own := directory / library).mkdir(parents=True)
            case = Case(library, cluster.bootstrap_servers, topic, str(own), plan.rate, at_most_s)
            clients[library] = Clients(case)
            stack.callback(clients[library].close)
        for process in clients.values():
            process.wait_until_ready()
        incidents = stage_faults(stage, cluster, plan)
        for process in clients.values():
            process.tell_to_stop()
        figures = {library: process.figures() for library, process in clients.items()}
        cluster.wait_until_healthy(HEALTHY_WITHIN_S)
        outcomes = []
        options = cluster.client_options()
        kept = read_commits(options) if isinstance(cluster, KafkaCluster) else None
        for library, topic in topics.items():
            findings = check(clients[library].case, read_log(options, topic), kept)
            own_figures = figures[library]
            until = own_figures["stopped_at"] if own_figures else incidents[-1].calm_until + plan.last_calm_s
            outcomes.append(
                Outcome(
                    library,
                    findings,
                    recoveries(findings, incidents, until),
                    own_figures,
                    "" if own_figures else clients[library].last_words(),
                )
            )
    return incidents, outcomes


def stage_faults(stage: Stage, cluster: Cluster, plan: Plan) -> list[Incident]:
    start = time.monotonic()
    incidents: list[Incident] = []
    for fault in faults(plan.seed, cluster.node_ids, plan.kinds, plan.pace):
        if time.monotonic() - start >= plan.seconds or len(incidents) == plan.most_faults:
            break
        incident = stage.carry_out(fault)
        incidents.append(incident)
        print(
            f"{incident.began - start:6.1f} s  {incident.kind} (broker {incident.node_id}) "
            f"for {incident.healed - incident.began:.1f} s, well after {incident.healthy - incident.healed:.1f} s more",
            file=sys.stderr,
            flush=True,
        )
    time.sleep(plan.last_calm_s)
    return incidents


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--minutes", type=float, default=15.0, help="for how long faults begin")
    add("--seed", type=int, default=7, help="decides on the order of the faults, their brokers and their times")
    add("--libraries", nargs="+", choices=list(LIBRARIES), default=list(LIBRARIES))
    add("--kinds", nargs="+", choices=[kind.name.lower() for kind in Kind], help="only these faults")
    add("--rate", type=float, default=10.0, help="records a second of each producer")
    add("--embedded", action="store_true", help="on an embedded cluster, to try it out; moves are left out")
    add("--keep", type=Path, metavar="DIRECTORY", help="where to leave what the clients wrote down; must not exist")
    add("--json", type=Path, metavar="FILE", help="where to write the figures")
    return parser.parse_args()


def main() -> int:
    from reliability.fault_figures import as_json, show

    arguments = parsed()
    kinds = [Kind[name.upper()] for name in arguments.kinds] if arguments.kinds else list(Kind)
    if arguments.embedded:
        kinds = [kind for kind in kinds if kind not in (Kind.MOVE_LEADERS, Kind.MOVE_COORDINATORS)]
    plan = Plan(arguments.seed, arguments.minutes * 60, arguments.libraries, kinds, rate=arguments.rate)
    with (
        tempfile.TemporaryDirectory() as temporary,
        (EmbeddedKafka if arguments.embedded else KafkaCluster)(brokers=3) as cluster,
    ):
        directory = arguments.keep or Path(temporary, "notes")
        incidents, outcomes = run(cluster, plan, directory)
    show(plan, incidents, outcomes)
    if arguments.json:
        arguments.json.write_text(json.dumps(as_json(plan, incidents, outcomes), indent=2))
    return int(any(outcome.broken_promises() for outcome in outcomes if outcome.library == "pooledkafka"))


if __name__ == "__main__":
    sys.exit(main())
