"""The ways in which Python programs start other processes."""

from __future__ import annotations

import pytest

from tests.forking.scripts import run


def test_a_pool_of_processes() -> None:
    run("""
    import multiprocessing

    def work(number):
        return producer.send(topic, b"%d" % number).get(timeout=30).offset >= 0

    producer = kafka.producer(connection_pool=pool)
    producer.send(topic, b"parent").get(timeout=30)
    with multiprocessing.get_context("fork").Pool(3) as processes:
        assert all(processes.map(work, range(20)))
    assert values(kafka, topic, 21) == sorted([*(str(n) for n in range(20)), "parent"])
    """)


def test_an_executor_of_processes() -> None:
    run("""
    import concurrent.futures, multiprocessing

    def work(number):
        with kafka.consumer(topic, connection_pool=pool, auto_offset_reset="earliest") as consumer:
            while not consumer.poll(timeout_ms=1_000):
                pass
        producer.send(topic, b"%d" % number).get(timeout=30)
        assert max(sum(lanes.values()) for lanes in pool.stats().connections.values()) <= 4
        return os.getpid()

    producer = kafka.producer(connection_pool=pool)
    for _ in range(6):
        producer.send(topic, b"parent").get(timeout=30)
    fork = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=fork, initializer=pool.stats) as executor:
        assert os.getpid() not in set(executor.map(work, range(6)))
    assert values(kafka, topic, 12) == [*(str(n) for n in range(6)), *["parent"] * 6]
    """)


def test_a_daemon_is_forked_twice() -> None:
    run("""
    producer = kafka.producer(connection_pool=pool)
    producer.send(topic, b"parent").get(timeout=30)
    read, write = os.pipe()

    def daemon():
        os.setsid()
        if os.fork():
            os._exit(0)
        producer.send(topic, b"daemon").get(timeout=30)
        pool.disconnect()
        os.write(write, b"done")
        os._exit(0)

    ended(child(daemon))
    assert os.read(read, 10) == b"done"
    producer.send(topic, b"parent").get(timeout=30)
    assert values(kafka, topic, 3) == ["daemon", "parent", "parent"]
    """)


# Such processes import the main module anew, so it has to be one, and cannot be a string.
STARTED = """
import multiprocessing, sys
from pooledkafka import Kafka

kafka = Kafka(bootstrap_servers=sys.argv[1])
pool = kafka.connection_pool()
producer = kafka.producer(connection_pool=pool)

def work(number):
    producer.send("orders", b"%d" % number).get(timeout=30)

if __name__ == "__main__":
    producer.send("orders", b"parent").get(timeout=30)
    context = multiprocessing.get_context(sys.argv[2])
    processes = [context.Process(target=work, args=(number,)) for number in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(40)
        assert process.exitcode == 0, process
    pool.disconnect()
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_processes_that_are_started_and_not_forked(method: str) -> None:
    run(f"""
    import pathlib, subprocess, tempfile
    with tempfile.TemporaryDirectory() as directory:
        script = pathlib.Path(directory, "started.py")
        script.write_text({STARTED!r})
        done = subprocess.run(
            [sys.executable, str(script), cluster.bootstrap_servers, {method!r}],
            env={{**os.environ, "PYTHONPATH": os.getcwd()}}, capture_output=True, text=True, timeout=150,
        )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert values(kafka, topic, 3) == ["0", "1", "parent"]
    """)
