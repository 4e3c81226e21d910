"""The metrics of several processes, which prometheus_client adds up. Whether it does is decided when it is imported."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

from tests.forking.scripts import PRELUDE

BEGIN = """
import struct
from prometheus_client import CollectorRegistry, generate_latest, multiprocess
from pooledkafka.contrib.prometheus import register, unregister
from tests.contrib.prometheus.exposition import parse

def scrape():
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)
    while True:
        try:
            return parse(generate_latest(registry).decode())
        except struct.error:  # prometheus_client reads a file that it has just made, and not yet given its size
            time.sleep(0.001)

def value(name, pool="shop", **labels):
    return scrape().get(("pooledkafka_" + name, frozenset({"pool": pool, **labels}.items())))

def until(ask, within_s=30):
    deadline = time.monotonic() + within_s
    while not (found := ask()):
        assert time.monotonic() < deadline, sorted(scrape().items(), key=repr)
        time.sleep(0.01)
    return found

def send(pool, count, topic="orders"):
    kafka.producer(connection_pool=pool).send_batch(topic, [{"value": b"x"}] * count).get(timeout=30)

def threads():
    return [thread.name for thread in threading.enumerate() if thread.name == "pooledkafka-prometheus"]

cluster = EmbeddedKafka(brokers=1)
cluster.open()
cluster.create_topic("orders", partitions=2)
kafka = Kafka(**cluster.client_options(), client_id="shop")
pool = kafka.connection_pool()
"""


def run(script: str, directory: Path) -> None:
    """Run a script in an interpreter of its own, in multiprocess mode."""
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + BEGIN + textwrap.dedent(script) + "\nos._exit(0)"],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(directory)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def test_nothing_runs_and_nothing_is_written_before_the_pool_connects(tmp_path: Path) -> None:
    run(
        """
        register(pool, interval_s=0.05)
        assert threads() == []
        assert scrape() == {}
        pool.connect()
        until(lambda: value("connections_created_total", broker="-1", lane="bootstrap") == 1)
        assert threads() == ["pooledkafka-prometheus"]
        """,
        tmp_path,
    )


def test_a_pool_that_is_connected_already_is_written_at_once(tmp_path: Path) -> None:
    run(
        """
        pool.connect()
        register(pool, interval_s=0.05)
        send(pool, 3)
        until(lambda: value("produced_records_total", topic="orders") == 3)
        """,
        tmp_path,
    )


def test_counters_of_processes_are_added_up_and_each_counts_its_own(tmp_path: Path) -> None:
    run(
        """
        register(pool, interval_s=0.05)
        send(pool, 10)
        until(lambda: value("produced_records_total", topic="orders") == 10)
        go_on = os.pipe()

        def work():
            send(pool, 5)
            until(lambda: value("produced_records_total", topic="orders") >= 15)
            assert threads() == ["pooledkafka-prometheus"]
            os.read(go_on[0], 1)

        pids = [child(work), child(work)]
        until(lambda: value("produced_records_total", topic="orders") == 20)
        until(lambda: value("connections", broker="1", lane="produce") == 3)
        until(lambda: value("request_duration_seconds_count", api="Produce") == 3)
        assert value("request_duration_seconds_bucket", api="Produce", le="+Inf") == 3
        os.write(go_on[1], b"..")
        for pid in pids:
            ended(pid)
            multiprocess.mark_process_dead(pid)
        assert value("connections", broker="1", lane="produce") == 1, "the gauges of the dead are gone"
        assert value("produced_records_total", topic="orders") == 20, "their counters stay"
        """,
        tmp_path,
    )


def test_a_process_that_ends_in_order_takes_its_gauges_along(tmp_path: Path) -> None:
    run(
        """
        register(pool, interval_s=0.05)
        send(pool, 10)
        until(lambda: value("connections", broker="1", lane="produce") == 1)
        pid = os.fork()
        if not pid:
            send(pool, 7)
            sys.exit(0)  # before the next time of writing, perhaps
        os.waitpid(pid, 0)
        assert value("connections", broker="1", lane="produce") == 1
        assert value("produced_records_total", topic="orders") == 17
        assert os.path.exists(os.path.join(os.environ["PROMETHEUS_MULTIPROC_DIR"], f"gauge_livesum_{pid}.db"))
        """,
        tmp_path,
    )


def test_so_does_a_process_of_multiprocessing(tmp_path: Path) -> None:
    run(
        """
        import multiprocessing
        register(pool, interval_s=3600)

        def work():
            send(pool, 7)
            until(threads)  # which hears of the connection on a thread of its own

        for _ in range(2):
            process = multiprocessing.get_context("fork").Process(target=work)
            process.start()
            process.join()
            assert process.exitcode == 0
        assert value("connections", broker="1", lane="produce") == 0
        assert value("produced_records_total", topic="orders") == 14
        """,
        tmp_path,
    )


def test_what_is_there_no_more_is_zero(tmp_path: Path) -> None:
    run(
        """
        register(pool, interval_s=0.05)
        send(pool, 4)
        consumer = kafka.consumer("orders", group_id="g", connection_pool=pool, auto_offset_reset="earliest")
        until(lambda: consumer.poll(100, max_records=1))
        which = {"group": "g", "topic": "orders"}
        until(lambda: sum(value("consumer_lag_records", partition=str(p), **which) or 0 for p in range(2)) == 3)
        consumer.close()
        until(lambda: not any(value("consumer_lag_records", partition=str(p), **which) for p in range(2)))
        until(lambda: value("consumer_poll_age_seconds", group="g") == 0)
        until(lambda: value("clients", kind="consumer") == 0)
        pool.disconnect()
        until(lambda: value("connections", broker="1", lane="produce") == 0)
        """,
        tmp_path,
    )


def test_counters_go_on_when_the_pool_is_connected_anew(tmp_path: Path) -> None:
    run(
        """
        register(pool, interval_s=0.05)
        for number in range(1, 4):
            pool.connect()
            send(pool, 2)
            until(lambda: value("produced_records_total", topic="orders") == 2 * number)
            with kafka.consumer("orders", connection_pool=pool, auto_offset_reset="earliest") as consumer:
                until(lambda: consumer.poll(100))
            fetches = until(lambda: value("wire_fetches_total"))
            pool.disconnect()
        assert threads() == ["pooledkafka-prometheus"]
        """,
        tmp_path,
    )


def test_two_pools_have_their_own_and_names_must_differ(tmp_path: Path) -> None:
    run(
        """
        from pooledkafka import ConfigurationError
        other = kafka.connection_pool()
        register(pool, interval_s=0.05)
        try:
            register(other, interval_s=0.05)
        except ConfigurationError as error:
            assert "another connection pool is registered as 'shop'" in str(error)
        else:
            raise AssertionError("accepted")
        register(other, name="other", interval_s=0.05)
        send(pool, 1)
        send(other, 2)
        until(lambda: value("produced_records_total", topic="orders") == 1)
        until(lambda: value("produced_records_total", "other", topic="orders") == 2)
        unregister(other)
        assert value("connections", "other", broker="1", lane="produce") == 0
        until(lambda: len(threads()) == 1)
        """,
        tmp_path,
    )


def test_registered_again_it_is_not_counted_twice(tmp_path: Path) -> None:
    run(
        """
        register(pool, interval_s=0.05)
        send(pool, 2)
        until(lambda: value("produced_records_total", topic="orders") == 2)
        register(pool, interval_s=0.05)
        unregister(pool)
        assert value("connections", broker="1", lane="produce") == 0
        register(pool, interval_s=0.05)
        send(pool, 3)
        until(lambda: value("connections", broker="1", lane="produce") == 1)
        until(lambda: value("produced_records_total", topic="orders") == 5)
        until(lambda: value("request_duration_seconds_count", api="Produce") == 2)
        """,
        tmp_path,
    )


def test_no_gauge_is_written_after_the_end(tmp_path: Path) -> None:
    run(
        """
        from pooledkafka.contrib.prometheus import _publisher
        samples, read, go_on = _publisher.samples, threading.Event(), threading.Event()

        def slow(*args, **options):
            yield from samples(*args, **options)
            if threading.current_thread().name == "pooledkafka-prometheus" and pool.stats().connections:
                read.set()
                go_on.wait(30)

        _publisher.samples = slow
        register(pool, interval_s=0.05)
        send(pool, 1)
        assert read.wait(30)
        unregister(pool)
        go_on.set()
        until(lambda: threads() == [])
        assert not value("connections", broker="1", lane="produce")
        """,
        tmp_path,
    )


def test_a_pool_that_is_dropped_is_collected_and_its_thread_ends(tmp_path: Path) -> None:
    run(
        """
        warnings.simplefilter("ignore", ResourceWarning)
        register(pool, interval_s=0.05)
        send(pool, 1)
        until(lambda: value("connections", broker="1", lane="produce") == 1)
        gone = weakref.ref(pool)
        del pool
        gc.collect()
        until(lambda: gone() is None)
        until(lambda: threads() == [])
        assert value("connections", broker="1", lane="produce") == 0
        """,
        tmp_path,
    )


def test_a_fork_waits_for_what_is_being_written(tmp_path: Path) -> None:
    run(
        """
        from prometheus_client.mmap_dict import MmapedDict
        write, writing, never = MmapedDict.write_value, threading.Event(), threading.Event()

        def slow(*args):
            if threading.current_thread().name == "pooledkafka-prometheus" and not writing.is_set():
                writing.set()
                never.wait(0.5)  # with prometheus_client's lock, while the main thread forks
            write(*args)

        MmapedDict.write_value = slow
        register(pool, interval_s=0.05)
        pool.connect()
        assert writing.wait(30)

        def work():
            send(pool, 1)
            until(lambda: value("produced_records_total", topic="orders") == 1)

        ended(child(work), within_s=20)
        """,
        tmp_path,
    )
