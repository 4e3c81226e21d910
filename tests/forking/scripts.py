"""Runs scripts that fork in an interpreter of their own, where nothing but what they do is going on."""

from __future__ import annotations

import subprocess
import sys
import textwrap

__all__ = ["run"]

PRELUDE = """
import gc, os, sys, threading, time, traceback, warnings, weakref
import psutil
from pooledkafka import ForkedClientError, Kafka, _forking
from pooledkafka.testing import EmbeddedKafka, Hold

warnings.simplefilter("error")
warnings.filterwarnings("ignore", "This process", DeprecationWarning)  # Python 3.12 says what is tested here
warnings.filterwarnings("ignore", "(read|open)_text is deprecated", DeprecationWarning)  # of kafka-python's schemas

def child(work, fork=os.fork):
    '''Fork, and run work there; returns its process id.'''
    sys.stdout.flush()
    pid = fork()
    if pid:
        return pid
    try:
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)

def ended(pid, within_s=60):
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            assert status == 0, status
            return
        time.sleep(0.01)
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    raise AssertionError("the forked process hangs")

def values(kafka, topic, count):
    with kafka.consumer(topic, auto_offset_reset="earliest", enable_auto_commit=False) as consumer:
        found = []
        while len(found) < count:
            found += [r.value.decode() for rs in consumer.poll(timeout_ms=5_000).values() for r in rs]
        return sorted(found + [r.value.decode() for rs in consumer.poll(timeout_ms=200).values() for r in rs])

def fork_unnoticed():
    '''Fork, and let nobody tell pooledkafka, as a C extension may.'''
    known, process, _forking._known = _forking._known, _forking._process, weakref.WeakSet()
    pid = os.fork()
    _forking._known, _forking._process = known, process
    return pid

def refused(call, *words):
    try:
        call()
    except ForkedClientError as error:
        assert all(word in str(error) for word in words), error
    else:
        raise AssertionError("it was done")

def connections_of(pid):
    '''The sockets of a process that are connected to brokers.'''
    sockets = psutil.Process(pid).net_connections("tcp")
    return [each for each in sockets if each.raddr and each.raddr.port in ports and each.status == "ESTABLISHED"]

cluster = EmbeddedKafka(brokers=3)
cluster.open()
topic = cluster.create_topic("orders", partitions=3)
ports = {int(address.rpartition(":")[2]) for address in cluster.bootstrap_servers.split(",")}
kafka = Kafka(**cluster.client_options())
pool = kafka.connection_pool()
"""


def run(script: str) -> None:
    """Run a script after the prelude, with warnings as errors; whatever it asserts must hold, in parent and child."""
    code = PRELUDE + textwrap.dedent(script) + "\npool.disconnect()\ncluster.close()\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == "", done.stderr
