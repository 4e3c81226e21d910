"""``pooledkafka doctor``."""

from __future__ import annotations

from typing import Any

import click

from pooledkafka._cli.connecting import cluster_options
from pooledkafka._cli.examination import examine
from pooledkafka._cli.findings import Finding, Status
from pooledkafka._cli.output import JSON_OPTION, print_json
from pooledkafka.errors import ConfigurationError

__all__ = ["doctor"]

_COLOURS = {Status.OK: "green", Status.FAILED: "red", Status.SKIPPED: "yellow"}


@click.command()
@click.argument("bootstrap", required=False, envvar="POOLEDKAFKA_BOOTSTRAP", metavar="[BOOTSTRAP]")
@cluster_options(bootstrap=False)
@click.option("--topic", metavar="NAME", help="Describe it, and fetch from it.")
@click.option(
    "--group",
    metavar="NAME",
    help="Look at this group, and join it if it has no members. Default: one that is thrown away.",
)
@click.option("--write", is_flag=True, help="Also send an empty record to --topic.")
@click.option(
    "--timeout", type=click.FloatRange(min=0.1), default=10.0, show_default=True, help="Seconds for each step."
)
@JSON_OPTION
@click.pass_context
def doctor(
    context: click.Context,
    options: dict[str, Any],
    topic: str | None,
    group: str | None,
    write: bool,
    timeout: float,
    as_json: bool,
) -> None:
    """Find out why a cluster cannot be reached, or used.

    Goes to the cluster in the steps that a client takes: name resolution, TCP, TLS, API versions, login, metadata,
    the address that each broker advertises, a topic, a fetch, a group. Each step is shown with its time; one that
    fails with its cause, and what to do. Nothing is changed in the cluster, but for what --write sends; a group that
    has members is not joined.

    BOOTSTRAP is host:port, several separated by commas; default: $POOLEDKAFKA_BOOTSTRAP, or localhost:9092. The exit
    code is 1 where a step failed.

    \b
    Examples:
      pooledkafka doctor kafka.example:9092
      pooledkafka doctor kafka.example:9093 --security-protocol SASL_SSL \\
          --sasl-mechanism PLAIN --sasl-username shop --topic orders
    """
    if write and topic is None:
        raise click.UsageError("--write needs --topic")
    findings = []
    try:
        for finding in examine(options, topic=topic, group=group, write=write, timeout_ms=timeout * 1000):
            findings.append(finding)
            if not as_json:
                _show(finding)
    except ConfigurationError:  # a ValueError too
        raise
    except ValueError as error:
        raise click.UsageError(f"BOOTSTRAP must be host:port, several separated by commas: {error}") from error
    failed = [finding for finding in findings if finding.status is Status.FAILED]
    if as_json:
        print_json({"ok": not failed, "steps": findings})
    else:
        click.echo(f"\n{len(failed)} of {len(findings)} steps failed" if failed else "\nall is well")
    context.exit(1 if failed else 0)


def _show(finding: Finding) -> None:
    status = click.style(f"{finding.status.value:<8}", fg=_COLOURS[finding.status])
    took = "" if finding.ms is None else f"{finding.ms:9.1f} ms"
    click.echo(f"{status}{finding.step:<20} {took:>12}  {finding.where}  {finding.found}".rstrip())
    for line in (finding.cause, finding.advice):
        if line:
            click.echo(f"{'':8}{line}.")
