"""What the benchmarks make of what they measured, and what they refuse to believe."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("psutil")

from benchmarks import rounds
from benchmarks.cases import Case, Fill, Plan, Topic, WrongCountError
from benchmarks.consume import ConsumeCase, wrong
from benchmarks.figures import libraries_in, number, ratios, which
from benchmarks.goals import GOALS, goal_table
from benchmarks.groups import balanced
from benchmarks.latency import LatencyCase
from benchmarks.libraries import LIBRARIES, WAYS, Counted, Reading
from benchmarks.load import all_arrived
from benchmarks.measuring import NOTHING_CAME, case_of
from benchmarks.options import PRODUCER, STREAMING, for_aiokafka, for_confluent, streaming, window
from benchmarks.process import moment
from benchmarks.produce import ProduceCase
from benchmarks.tables import group_cell, tables
from benchmarks.values import Supply

ROOT = Path(__file__).parent.parent
LATENCY = LatencyCase(topic="t", partitions=6, rate=100, size=10, load_s=1.0)
PRODUCE = ProduceCase(partitions=2, size=200, codec="none", options="same", records=10, seconds=1.0, topic="t")


class FakeBrokers:
    """A cluster whose topics all have these ends."""

    def __init__(self, *ends: int) -> None:
        self._ends = list(ends)
        self.topics: list[str] = []

    def create(self, topics: list[Topic]) -> None:
        self.topics += [topic.name for topic in topics]

    def delete(self, topics: list[str]) -> None:
        for topic in topics:
            self.topics.remove(topic)

    def ends(self, topic: str) -> list[int]:
        return self._ends


def view(*numbers: int) -> frozenset[tuple[str, int]]:
    return frozenset(("topic", number) for number in numbers)


@pytest.mark.parametrize(
    ("views", "expected"),
    [
        ([view(0, 1), view(2, 3), view(4)], True),
        ([view(0, 1, 2, 3, 4), view(), view()], False),  # the first to come owns all
        ([view(0, 1, 2), view(3), view(4)], False),  # uneven
        ([view(0, 1), view(2, 3), view()], False),  # one has no owner
        ([view(0, 1), view(2, 3), view(3, 4)], False),  # one has two owners
    ],
)
def test_balanced(views: list[frozenset[tuple[str, int]]], expected: bool) -> None:
    assert balanced(views, 5) is expected


# -- figures -----------------------------------------------------------------------------------------------------------


def test_ratios_are_taken_within_a_round() -> None:
    results: list[dict[str, Any]] = [
        {"library": library, "round": number, "consumers": consumers, "ms": ms}
        for library, number, consumers, ms in [
            ("a", 0, 1, 2.0),
            ("a", 0, 50, 3.0),
            ("a", 1, 1, 10.0),
            ("a", 1, 50, 10.0),
            ("a", 2, 1, 5.0),  # a round that was cut short
            ("a", 3, 1, 5.0),
            ("a", 3, 50, None),  # what never happened has no time
            ("b", 0, 1, 1.0),
            ("b", 0, 50, 9.0),
        ]
    ]
    many, one = which(results, library="a", consumers=50), which(results, library="a", consumers=1)
    assert ratios(many, one, "ms") == [1.5, 1.0]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.123, "0.12"), (3.0, "3"), (42.25, "42.2"), (633.4, "633"), (43_210.0, "43 k"), (1_234_567.0, "1.23 M")],
)
def test_numbers_are_short(value: float, text: str) -> None:
    assert number(value) == text


def test_libraries_come_in_the_same_order_whichever_began() -> None:
    assert libraries_in([{"library": name} for name in reversed(LIBRARIES)]) == list(LIBRARIES)


def test_a_group_that_never_balanced_is_not_hidden_in_the_median() -> None:
    results = [
        {"library": "a", "groups": 2, "balanced_s": times, "balanced_at_the_end": stayed, "errors": []}
        for times, stayed in [([0.2, 0.4], 2), ([0.2, None], 1), ([0.1, 0.2], 1)]
    ]
    assert group_cell(results, "a", max) == (
        "0.30 (0.20 to 0.40), all balanced in 2 of 3 rounds, 1 no longer so at the end"
    )


def produced(library: str, way: str, *records_per_s: float, size: int = 200, codec: str = "none") -> list[Any]:
    case = {"benchmark": "produce", "library": library, "way": way, "size": size, "codec": codec, "options": "same"}
    figures = {"mb_per_s": 1.0, "cpu_s_per_million": 2.0, "peak_rss_mb": 50.0}
    return [{"round": n, **case, **figures, "records_per_s": each} for n, each in enumerate(records_per_s)]


def read(library: str, kind: str, seconds: float, times: float, size: int = 200) -> list[Any]:
    return [
        {"round": 0, "benchmark": "consume", "library": library, "kind": kind, "size": size, "codec": "none"}
        | {"seconds": seconds, "records_per_s": 1e6 / seconds, "records_per_s_after_first": 2e6 / seconds}
        | {"cpu_s_per_million": 1.0, "peak_rss_mb": 60.0, "received_times": times}
    ]


def waited(library: str, consumers: int, **figures: float) -> list[Any]:
    counts = {"sent": 10, "received": 10, "errors": [], "failed": [], "assigned": consumers}
    sockets = {"sockets": 4, "sockets_to_one_broker": 2, "sockets_to_one_broker_under_load": 2, "threads": 1}
    ms = {f"{what}_{p}_ms": 1.0 for what in ("produce", "end_to_end") for p in ("p50", "p99")}
    rest = {"rss_mb": 5.0, "idle_cpu_percent": 1.0, "assigned_s": 0.1}
    return [
        {"round": 0, "benchmark": "waiting", "library": library, "consumers": consumers}
        | counts | sockets | ms | rest | figures
    ]  # fmt: skip


def test_goals_are_judged_by_the_median_of_the_rounds() -> None:
    results = [
        *produced("pooledkafka", "send_batch", 800.0, 500.0, 400.0),
        *produced("kafka-python", "send", 100.0, 50.0, 100.0),
        *produced("confluent-kafka", "produce", 1600.0, 1250.0, 1000.0),
    ]
    table = goal_table(results)
    assert table is not None
    over_stock, over_confluent = table.splitlines()[2:]
    assert "at least 8" in over_stock
    assert "8.00 (4.00 to 10.00)" in over_stock
    assert over_stock.endswith("| yes |")
    assert "0.40 (0.40 to 0.50)" in over_confluent
    assert over_confluent.endswith("| no  |")


def test_all_goals_can_be_told() -> None:
    small = [
        *produced("pooledkafka", "send_batch", 800.0),
        *produced("kafka-python", "send", 100.0),
        *produced("confluent-kafka", "produce", 1600.0),
    ]
    results = [
        *small,
        *[{**r, "options": "defaults"} for r in small],
        *[{**r, "options": "defaults"} for r in produced("pooledkafka", "send", 90.0, size=1_000)],
        *[{**r, "options": "defaults"} for r in produced("kafka-python", "send", 30.0, size=1_000)],
        *read("pooledkafka", "1 consumer", 1.0, 1.0),
        *read("kafka-python", "1 consumer", 2.0, 1.0),
        *read("pooledkafka", "8 groups", 2.0, 1.05),
        *read("confluent-kafka", "8 groups", 2.0, 8.0),
        *[waited("pooledkafka", n)[0] for n in (1, 50)],
        *waited("kafka-python", 50),
        *waited("confluent-kafka", 50, idle_cpu_percent=2.0, assigned_s=0.1),
    ]
    rows = str(goal_table(results)).splitlines()[2:]
    assert len(rows) == len(GOALS)
    not_met = [row.split("|")[1].strip() for row in rows if row.endswith("| no  |")]
    assert not_met == [  # as fast is not faster
        "50 consumers from nothing to assigned, over confluent-kafka's time",
        "8 groups on one topic, all records, over confluent-kafka's time",
    ]


def test_tables_show_ratios_and_failures() -> None:
    results = [*produced("aiokafka", "send", 300.0, 300.0), *produced("kafka-python", "send", 100.0, 50.0)]
    shown = tables({"machine": "2 cores", "results": results, "failures": ["round 1, aiokafka: lost"]})
    assert shown.startswith("2 cores\n\nOne producer")
    assert "| aiokafka     | send | 200  | none  | same    | 300       |" in shown
    assert "| 4.50 (3.00 to 6.00) |" in shown
    assert shown.endswith("Failed, and in no table\n\nround 1, aiokafka: lost")


def test_runs_are_taken_together_as_rounds_of_one() -> None:
    run = {"machine": "2 cores", "results": produced("aiokafka", "send", 1.0, 2.0), "failures": ["one"]}
    together = rounds.taken_together([run, run])
    assert [result["round"] for result in together["results"]] == [0, 1, 2, 3]
    assert together["machine"] == "2 cores"
    assert together["failures"] == ["one", "one"]


def test_plots_are_small_and_white(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from benchmarks.plots import PLOTS, draw

    scaled = {"sockets": 4, "threads": 1, "rss_mb": 2.0, "idle_cpu_percent": 1.0, "next_consumer_s": 0.1}
    ms = {f"{what}_{p}_ms": 1.0 for what in ("produce", "end_to_end") for p in ("p50", "p99")}
    results: list[Any] = []
    for library in LIBRARIES:
        for size in (100, 1_000, 10_000):
            results += produced(library, "send", 1e5, size=size)
            results += [r for kind in ("1 consumer", "8 groups") for r in read(library, kind, 1.0, 1.0, size)]
        for codec in ("gzip", "zstd"):
            results += produced(library, "send", 1e4, size=1_000, codec=codec)
        for count in (1, 10, 500):
            common = {"round": 0, "library": library, **scaled, **ms, "records_per_s": 1e4}
            results.append({**common, "benchmark": "clients", "clients": count, "assigned_s": None})
            results.append({**common, "benchmark": "partitions", "partitions": count, "assigned_s": 0.1})
            results.append({**common, "benchmark": "latency", "rate": count, "size": 10})
            results += waited(library, count)
    files = draw({"results": results}, tmp_path / "images")
    assert [file.name for file in files] == [f"{name}.svg" for name in PLOTS]
    for file in files:
        text = file.read_text()
        assert len(text) < 200_000
        assert "fill: #ffffff" in text
        assert "pooledkafka" in text
    first = files[0].read_bytes()
    assert draw({"results": results}, tmp_path)[0].read_bytes() == first, "the same figures give the same file"
    assert draw({"results": []}, tmp_path) == []


# -- what is measured --------------------------------------------------------------------------------------------------


def test_every_library_begins_as_often_and_does_all_its_ways() -> None:
    cases: list[Case] = [LATENCY, PRODUCE, replace(LATENCY, rate=5, libraries=("aiokafka",))]
    turns = list(rounds.in_turns(cases, list(LIBRARIES), 4))
    of_latency = [case.library for _, case in turns if isinstance(case, LatencyCase) and case.rate == LATENCY.rate]
    assert sorted(of_latency[:: len(LIBRARIES)]) == sorted(LIBRARIES), "another one begins in each round"
    ways = [f"{case.library} {case.way}" for number, case in turns if number == 0 and isinstance(case, ProduceCase)]
    assert sorted(ways) == sorted(WAYS)
    assert [case.library for n, case in turns if n == 1 and isinstance(case, LatencyCase) and case.rate == 5] == [
        "aiokafka"
    ]
    assert [n for n, _ in turns] == sorted(n for n, _ in turns)


def test_a_case_survives_the_way_to_its_process() -> None:
    case = ConsumeCase(topic="t", kind="8 groups", size=10, codec="lz4", records=5, ends=(1, 2), library="aiokafka")
    arrived = case_of(json.loads(json.dumps(case.as_plain_values())))
    assert isinstance(arrived, ConsumeCase)
    assert arrived.what() == case.what()
    assert [reading.expected for reading in arrived.readings()] == [3] * 8


def test_consumers_that_share_have_each_partition_once() -> None:
    case = ConsumeCase(topic="t", kind="8 consumers", size=10, codec="none", records=5, ends=tuple(range(24)))
    readings = case.readings()
    assert sorted(partition for reading in readings for partition in reading.partitions) == list(range(24))
    assert sum(reading.expected for reading in readings) == sum(range(24))
    assert not any(reading.subscribes for reading in readings)


def test_values_are_as_many_and_as_large_as_asked_for() -> None:
    for size, records in ((1, 3), (100, 2_500), (10_000, 55)):
        supply = Supply(size, records, 60.0)
        values = [value for chunk in supply for value in chunk]
        assert len(values) == records == supply.taken
        assert {len(value) for value in values} == {size}
    assert list(Supply(100, 10, 0.0)) == []


def test_what_waits_is_bounded_by_count_and_by_bytes() -> None:
    assert window(100) == 100_000
    assert window(10_000) == 6_400


def test_options_have_the_names_of_each_library() -> None:
    assert for_confluent({"fetch_max_wait_ms": 1, "linger_ms": 2}) == {"fetch.wait.max.ms": 1, "linger.ms": 2}
    assert for_aiokafka({"batch_size": 1, "linger_ms": 2}) == {"max_batch_size": 1, "linger_ms": 2}
    assert streaming("same", "none") == STREAMING
    assert streaming("defaults", "zstd") == {"acks": "all", "enable_idempotence": True, "compression_type": "zstd"}
    assert PRODUCER.items() >= streaming("defaults", "none").items()


# -- what is not believed ----------------------------------------------------------------------------------------------


def test_a_record_that_is_not_in_the_log_is_missed() -> None:
    PRODUCE.check({"records": 10}, FakeBrokers(6, 6))  # one of each partition came before the clock ran
    for ends in ((6, 5), (6, 7)):
        with pytest.raises(WrongCountError, match=r"10 records were sent, but (9|11) are in the log"):
            PRODUCE.check({"records": 10}, FakeBrokers(*ends))


@pytest.mark.parametrize(
    ("records", "size", "positions", "what"),
    [
        (3, 10, {0: 1, 1: 2}, ""),
        (2, 10, {0: 1, 1: 2}, "2 of 3 records were read"),
        (4, 10, {0: 1, 1: 2}, "4 of 3 records were read"),
        (3, 9, {0: 1, 1: 2}, "27 bytes were read in 3 records of 10"),
        (3, 10, {0: 1, 1: 1}, "the reader is at {0: 1, 1: 1}, not at {0: 1, 1: 2}"),  # one came twice, one was lost
    ],
)
def test_a_record_that_was_not_read_once_is_found(records: int, size: int, positions: Any, what: str) -> None:
    now = moment()
    counted = Counted(records, records * size, positions, now, now)
    assert wrong([Reading("t", "g", (0, 1), True, 3)], [counted], (1, 2), 10) == ([what] if what else [])


@pytest.mark.parametrize(
    "figures", [{"received": 9}, {"acknowledged": 9, "received": 9}, {"received_twice": 1}, {"failed": ["late"]}]
)
def test_a_load_that_did_not_arrive_is_found(figures: dict[str, Any]) -> None:
    right = {"sent": 10, "acknowledged": 10, "received": 10, "received_twice": 0, "failed": []}
    all_arrived(right)
    with pytest.raises(WrongCountError):
        all_arrived({**right, **figures})


def run_of(processes: list[tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch) -> rounds.Run:
    """A run whose processes end like this, one after another."""

    def in_a_process(case: Case) -> subprocess.CompletedProcess[str]:
        code, out, err = processes.pop(0)
        return subprocess.CompletedProcess([], code, out, err)

    monkeypatch.setattr(rounds, "in_a_process", in_a_process)
    return rounds.Run(FakeBrokers(2, 2), "", ["aiokafka"], 1, {}, "2 cores", say=lambda _: None)


def test_one_failure_spoils_no_other_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    good = '{"sent": 1, "acknowledged": 1, "received": 1, "received_twice": 0, "failed": []}'
    lost = good.replace('"received": 1', '"received": 0')
    run = run_of([(1, "", "it broke"), (0, lost, ""), (NOTHING_CAME, "", "none"), (0, good, "")], monkeypatch)
    run.carry_out(Plan(cases=[LATENCY, LATENCY, LATENCY]))
    assert [(result["library"], result["attempts"]) for result in run.results] == [("aiokafka", 2)]
    assert [failure.split(": ", 1)[1][:12] for failure in run.failures] == ["it broke", "of 1 records"]


def test_topics_go_whatever_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of([(0, '{"records": 4}', ""), (0, '{"records": 4}', "")], monkeypatch)
    with run._topics([Topic("full", 2, fill=Fill(4, 10, "none"))]):
        assert run.brokers.topics == ["full"]  # type: ignore[attr-defined]
    assert run.brokers.topics == []  # type: ignore[attr-defined]
    not_full = run._topics([Topic("full", 2, fill=Fill(5, 10, "none"))])
    with pytest.raises(rounds.MeasurementError, match="full has 4 records, not 5"), not_full:
        pytest.fail("it is not full")
    assert run.brokers.topics == []  # type: ignore[attr-defined]


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_command_measures_shows_and_plots(tmp_path: Path) -> None:
    file = tmp_path / "throughput.json"
    command = [sys.executable, "-m", "benchmarks"]
    some = ["--libraries", "pooledkafka", "--sizes", "100", "--codecs", "none", "--kinds", "1 consumer"]
    arguments = ["throughput", "--quick", "--backend", "embedded", *some, "--json", str(file)]
    measured = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert measured.returncode == 0, measured.stderr
    assert "One producer" in measured.stdout
    results = json.loads(file.read_text())["results"]
    assert [(r["benchmark"], r.get("way"), r["records"]) for r in results] == [
        ("produce", "send", 2_000),
        ("produce", "send_batch", 2_000),
        ("consume", None, 2_000),
    ]
    assert [r["in_log"] for r in results[:2]] == [2_000, 2_000]
    shown = subprocess.run([*command, "show", str(file)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert shown.stdout == measured.stdout
    plot = [*command, "plot", str(file), "--to", str(tmp_path)]
    plotted = subprocess.run(plot, cwd=ROOT, capture_output=True, text=True, check=False)
    assert plotted.returncode == 0, plotted.stderr
    assert plotted.stdout.splitlines() == [str(tmp_path / "throughput.svg")]
