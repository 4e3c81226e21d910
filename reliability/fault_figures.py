"""The figures of a run with broker faults, as tables and as JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from reliability.broker_faults import Outcome, Plan
from reliability.fault_stage import Incident
from reliability.recovery import Recovery

__all__ = ["as_json", "show"]

_SHOWN = 5
COLUMNS = {
    "no acknowledgement": "ack_silence",
    "acknowledged after heal": "ack_after_heal",
    "nothing read": "read_silence",
    "read after heal": "read_after_heal",
}


def show(plan: Plan, incidents: list[Incident], outcomes: list[Outcome]) -> None:
    """Print everything."""
    console = Console(width=150)
    console.print(f"{len(incidents)} faults, seed {plan.seed}")
    console.print(records_table(outcomes))
    console.print(recovery_table(outcomes))
    for outcome in outcomes:
        for what, found in outcome.findings.broken.items():
            for example in found[:_SHOWN]:
                console.print(f"{outcome.library}: {what}: {example}")
        for error, number in (outcome.findings.failed + outcome.findings.errors).most_common():
            console.print(f"{outcome.library}: {number} x {error}", markup=False)
        if outcome.library == "pooledkafka":
            for sentence in outcome.broken_promises():
                console.print(f"[bold red]NOT KEPT[/] {sentence}")


def records_table(outcomes: list[Outcome]) -> Table:
    table = Table(title="Records", title_justify="left")
    table.add_column("")
    for outcome in outcomes:
        table.add_column(outcome.library, justify="right")
    rows: dict[str, list[Any]] = {
        "acknowledged": [outcome.findings.acknowledged for outcome in outcomes],
        "read, by all groups": [outcome.findings.read for outcome in outcomes],
    }
    for what in outcomes[0].findings.broken:
        rows[what] = [len(outcome.findings.broken[what]) for outcome in outcomes]
    rows["read again, as Kafka allows"] = [outcome.findings.redelivered for outcome in outcomes]
    rows["commits that the brokers acknowledged and lost"] = [outcome.findings.commits_gone for outcome in outcomes]
    rows["sends that failed"] = [outcome.findings.failed.total() for outcome in outcomes]
    rows["of these, written all the same"] = [outcome.findings.failed_but_written for outcome in outcomes]
    rows["other errors that users saw"] = [outcome.findings.errors.total() for outcome in outcomes]
    rows["times that a client never recovered"] = [
        outcome.recovery["all"].never if outcome.recovery else 0 for outcome in outcomes
    ]
    for name, what in (
        ("unended_clients", "clients that could not be ended"),
        ("sockets_left", "sockets left"),
        ("threads_left", "threads left"),
        ("cpu_s", "processor time, s"),
    ):
        rows[what] = [outcome.figures[name] if outcome.figures else "did not end" for outcome in outcomes]
    for what, values in rows.items():
        table.add_row(what, *map(str, values))
    return table


def recovery_table(outcomes: list[Outcome]) -> Table:
    table = Table(title="Seconds, median / worst", title_justify="left")
    for column in ("fault", "times", "library", *COLUMNS, "late", "never"):
        table.add_column(column, justify="left" if column in ("fault", "library") else "right")
    for kind in sorted(
        {kind for outcome in outcomes for kind in outcome.recovery}, key=lambda kind: (kind == "all", kind)
    ):
        table.add_section()
        for number, outcome in enumerate(outcomes):
            recovery = outcome.recovery.get(kind, Recovery())
            table.add_row(
                kind if number == 0 else "",
                str(recovery.faults) if number == 0 else "",
                outcome.library,
                *(str(getattr(recovery, name)) for name in COLUMNS.values()),
                str(recovery.late),
                str(recovery.never),
            )
    return table


def as_json(plan: Plan, incidents: list[Incident], outcomes: list[Outcome]) -> dict[str, Any]:
    """All figures."""
    return {
        "seed": plan.seed,
        "seconds": plan.seconds,
        "incidents": [asdict(incident) for incident in incidents],
        "libraries": {
            outcome.library: {
                "acknowledged": outcome.findings.acknowledged,
                "read": outcome.findings.read,
                "redelivered": outcome.findings.redelivered,
                "commits_gone": outcome.findings.commits_gone,
                "failed": dict(outcome.findings.failed),
                "failed_but_written": outcome.findings.failed_but_written,
                "errors": dict(outcome.findings.errors),
                **{what: found[:_SHOWN] for what, found in outcome.findings.broken.items()},
                "recovery": {
                    kind: {
                        "faults": recovery.faults,
                        "late": recovery.late,
                        "never": recovery.never,
                        **{
                            name: {
                                "median": getattr(recovery, name).median,
                                "worst": getattr(recovery, name).worst,
                            }
                            for name in COLUMNS.values()
                        },
                    }
                    for kind, recovery in outcome.recovery.items()
                },
                "figures": outcome.figures,
            }
            for outcome in outcomes
        },
    }
