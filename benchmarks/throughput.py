"""How many records a second can be sent, and read: by size, by codec, and by who reads."""

from __future__ import annotations

import argparse
from typing import Any

from benchmarks import consume, produce
from benchmarks.cases import Plan

__all__ = ["QUICK", "add_options", "plan"]

QUICK: dict[str, Any] = {**produce.QUICK, **consume.QUICK, "sizes": [100, 10_000], "codecs": ["none", "gzip", "zstd"]}


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--sizes", type=int, nargs="+", default=[100, 1_000, 10_000], help="bytes of a value")
    add("--codecs", nargs="+", choices=produce.CODECS, default=list(produce.CODECS))
    add("--codec-size", type=int, default=1_000, help="bytes of a value, where codecs are compared")
    add("--partitions", type=int, default=6, help="of a topic; four times as many where consumers share them")
    add(
        "--options",
        choices=["same", "defaults"],
        default="same",
        help="a producer's: the same linger and batches for all libraries, or each library's defaults",
    )
    produce.add_options(parser)
    consume.add_options(parser)


def plan(arguments: argparse.Namespace, name: str) -> Plan:
    """Producing, then reading."""
    if min([*arguments.sizes, arguments.codec_size, arguments.partitions]) < 1:
        raise argparse.ArgumentTypeError("sizes and partitions are counts from 1 on")
    return produce.plan(arguments, name) + consume.plan(arguments, name)
