"""A fork at the worst moment of another thread; each moment is staged."""

from __future__ import annotations

import textwrap

import pytest

from tests.forking.scripts import run

# Runs something in a thread until that is in the middle of a call that it makes, where it stays until let go.
STAGE = """
class Paused:
    def __init__(self, owner, name):
        self.there, self.go_on = threading.Event(), threading.Event()
        self.owner, self.name = owner, name

    def __enter__(self):
        self.original = original = getattr(self.owner, self.name)

        def paused(*args, **kwargs):
            if not self.there.is_set():
                self.there.set()
                assert self.go_on.wait(30)
            return original(*args, **kwargs)

        setattr(self.owner, self.name, paused)
        return self

    def __exit__(self, *_):
        setattr(self.owner, self.name, self.original)
        self.go_on.set()

    def run(self, work):
        self.thread = threading.Thread(target=work)
        self.thread.start()
        assert self.there.wait(30)

    def end(self):
        self.go_on.set()
        self.thread.join(40)
        assert not self.thread.is_alive()

def use_all(value):
    '''Use the pool in every way, in this process.'''
    assert connections_of(os.getpid()) == []
    pool.connect()
    with kafka.producer(connection_pool=pool) as producer:
        producer.send(topic, value).get(timeout=30)
    with kafka.consumer(topic, group_id="own", connection_pool=pool, auto_offset_reset="earliest") as consumer:
        while not consumer.assignment():
            consumer.poll(timeout_ms=100)
    assert topic in kafka.admin(connection_pool=pool).list_topics()
    pool.disconnect()
    assert connections_of(os.getpid()) == []
"""


def run_staged(script: str, before: str = "") -> None:
    run(STAGE + before + textwrap.dedent(script))


@pytest.mark.parametrize("make", ["producer", "consumer", "admin"])
def test_while_a_client_is_being_made(make: str) -> None:
    run_staged(f"""
    import pooledkafka._client
    pool.connect()
    with Paused(pooledkafka._client, "client_options") as paused:
        paused.run(lambda: kafka.{make}(connection_pool=pool))
        pid = child(lambda: use_all(b"child"))
        paused.end()
    ended(pid)
    kafka.producer(connection_pool=pool).send(topic, b"parent").get(timeout=30)
    """)


def test_while_a_private_pool_is_being_made() -> None:
    run_staged("""
    import pooledkafka._client
    with Paused(pooledkafka._client, "client_options") as paused:
        paused.run(lambda: kafka.producer())
        ended(child(lambda: use_all(b"child")))
        paused.end()
    """)


@pytest.mark.parametrize("request_name", ["ApiVersions", "Metadata"])
def test_while_the_pool_connects(request_name: str) -> None:
    run_staged(f"""
    hold = cluster.intercept({request_name!r}, Hold(), times=1)
    thread = threading.Thread(target=pool.connect)
    thread.start()
    hold.wait_for(1)
    pid = child(lambda: use_all(b"child"))
    ended(pid)
    hold.release()
    thread.join(40)
    assert not thread.is_alive() and "[connected" in repr(pool)
    kafka.producer(connection_pool=pool).send(topic, b"parent").get(timeout=30)
    assert values(kafka, topic, 2) == ["child", "parent"]
    """)


def test_while_the_pool_disconnects() -> None:
    run_staged("""
    from pooledkafka import PoolClosedError
    from pooledkafka._wire.engine import Engine
    kafka.producer(connection_pool=pool).send(topic, b"parent").get(timeout=30)
    with Paused(Engine, "stop") as paused:
        paused.run(pool.disconnect)

        def work():
            try:
                kafka.producer(connection_pool=pool).send(topic, b"x")
            except PoolClosedError:
                use_all(b"child")
            else:
                raise AssertionError("it was sent")

        ended(child(work))
        paused.end()
    assert connections_of(os.getpid()) == []
    """)


def test_while_a_connection_is_being_closed() -> None:
    run_staged("""
    import socket
    producer = kafka.producer(connection_pool=pool)
    producer.send(topic, b"parent").get(timeout=30)
    with Paused(socket.socket, "shutdown") as paused:
        paused.run(pool.disconnect)

        def work():
            while connections_of(os.getpid()):  # the parent is about to shut this one down
                time.sleep(0.01)
            use_all(b"child")

        pid = child(work)
        paused.end()
        ended(pid)
    """)


# Lets a child look for the parent's connections once the parent has one.
ONCE_CONNECTED = """
pool.connect()
producer = kafka.producer(connection_pool=pool)
ready, tell = os.pipe()

def connect():
    producer.send(topic, b"parent").get(timeout=30)

def use_all_once_connected():
    os.close(tell)
    os.read(ready, 1)
    use_all(b"child")

def connected():
    assert connections_of(os.getpid())
    os.write(tell, b".")
"""


def test_while_a_connection_is_being_opened() -> None:
    run_staged(
        """
    from kafka.net.inet import KafkaNetSocket
    with Paused(KafkaNetSocket, "connect_ex") as paused:
        paused.run(connect)
        pid = child(use_all_once_connected)
        paused.end()
    connected()
    ended(pid)
    """,
        before=ONCE_CONNECTED,
    )


def test_while_a_socket_is_being_made() -> None:
    run_staged(
        """
    from kafka.net.inet import KafkaNetSocket
    made, forked = threading.Event(), threading.Event()
    make = KafkaNetSocket.socket

    def slowly(*args):
        socket = make(*args)
        made.set()
        forked.wait(1)  # in vain: the fork waits for this thread
        return socket

    KafkaNetSocket.socket = slowly
    thread = threading.Thread(target=connect)
    thread.start()
    assert made.wait(30)

    def work():
        KafkaNetSocket.socket = make
        use_all_once_connected()

    pid = child(work)
    forked.set()
    thread.join(40)
    connected()
    ended(pid)
    """,
        before=ONCE_CONNECTED,
    )


def test_while_a_socket_is_being_made_by_what_tells_nobody() -> None:
    """The child of a fork that Python knows nothing of forks itself, before it uses anything of the pool's."""
    run_staged("""
    making, go_on = threading.Event(), threading.Event()

    def make():
        with _forking.unforked():
            making.set()
            assert go_on.wait(60)

    thread = threading.Thread(target=make)
    thread.start()
    assert making.wait(30)
    import ctypes
    pid = ctypes.CDLL(None).fork()
    if not pid:
        try:
            ended(child(lambda: None), within_s=20)
            status = 0
        except BaseException:
            traceback.print_exc()
            status = 1
        os._exit(status)
    ended(pid)
    go_on.set()
    thread.join(40)
    """)


def test_while_a_kafka_producer_is_being_made() -> None:
    run_staged("""
    from kafka.producer.sender import Sender
    pool.connect()
    producer = kafka.producer(connection_pool=pool)
    with Paused(Sender, "start") as paused:
        paused.run(lambda: producer.send(topic, b"parent").get(timeout=30))
        ended(child(lambda: use_all(b"child")))
        pid = os.fork()
        if not pid:
            sys.exit(0)  # nothing is flushed or waited for
        ended(pid, within_s=30)
        paused.end()
    assert values(kafka, topic, 2) == ["child", "parent"]
    """)


@pytest.mark.parametrize("fork", ["os.fork", "fork_unnoticed"])
def test_while_every_lock_is_held(fork: str) -> None:
    run_staged(f"""
    producer = kafka.producer(connection_pool=pool)
    producer.send(topic, b"parent").get(timeout=30)
    consumer = kafka.consumer(topic, connection_pool=pool)
    consumer.poll(timeout_ms=100)
    admin = kafka.admin(connection_pool=pool)
    admin.list_topics()
    pool.add_listener(lambda event: None)
    connection = pool._connection
    cluster_ = connection.engine.manager.cluster
    locks = [pool._life, pool._lock, pool._feed._changed, producer._opening, consumer._use, admin._opening,
             connection.senders._lock, connection.engine._stop_lock, cluster_._lock, cluster_._views_lock,
             connection.engine.net._pending_waiters_lock,
             *(sender._facade._mailbox._changed for sender in connection.senders._shared.values())]
    held, let_go = threading.Event(), threading.Event()

    def hold():
        from contextlib import ExitStack
        while True:
            with ExitStack() as stack:
                for lock in locks:
                    if not lock.acquire(blocking=False):  # in no order, so not by waiting
                        break  # another thread has it for a moment, and may want one of these meanwhile
                    stack.callback(lock.release)
                else:
                    held.set()
                    let_go.wait(30)
                    return

    thread = threading.Thread(target=hold)
    thread.start()
    assert held.wait(30)

    def work():
        repr(pool)
        pool.add_listener(print)
        pool.remove_listener(print)
        producer.send(topic, b"child").get(timeout=30)
        producer.flush(timeout=30)
        producer.close()
        admin.list_topics()
        admin.close()
        refused(consumer.poll)
        consumer.close()
        pool.disconnect()
        pool.connect()
        pool.disconnect()

    pid = child(work, {fork})
    let_go.set()
    thread.join(40)
    ended(pid)
    assert values(kafka, topic, 2) == ["child", "parent"]
    consumer.close()
    """)


def test_while_an_admin_request_is_in_flight() -> None:
    run_staged("""
    hold = cluster.intercept("CreateTopics", Hold(), times=1)
    admin = kafka.admin(connection_pool=pool)
    errors = []

    def create():
        try:
            admin.create_topics({"new": {"num_partitions": 1, "replication_factor": 1}})
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=create)
    thread.start()
    hold.wait_for(1)
    ended(child(lambda: use_all(b"child")))
    hold.release()
    thread.join(40)
    assert errors == [] and "new" in admin.list_topics()
    """)


def test_several_threads_are_first_in_a_process_that_nobody_told() -> None:
    run_staged("""
    producer = kafka.producer(connection_pool=pool)
    producer.send(topic, b"parent").get(timeout=30)

    def work():
        start, errors = threading.Barrier(8), []

        def use():
            try:
                start.wait(30)
                producer.send(topic, b"child").get(timeout=30)
                kafka.producer(connection_pool=pool).send(topic, b"child").get(timeout=30)
            except BaseException as error:
                errors.append(error)

        threads = [threading.Thread(target=use) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(40)
        assert errors == []
        assert max(sum(lanes.values()) for lanes in pool.stats().connections.values()) <= 4
        pool.disconnect()
        assert connections_of(os.getpid()) == []

    ended(child(work, fork_unnoticed))
    producer.send(topic, b"parent").get(timeout=30)
    assert values(kafka, topic, 18) == ["child"] * 16 + ["parent"] * 2
    """)
