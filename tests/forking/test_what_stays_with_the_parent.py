"""What a forked process has inherited and may not use, and what it must not do to the parent by having it."""

from __future__ import annotations

import pytest

from tests.forking.scripts import run


@pytest.mark.parametrize("fork", ["os.fork", "fork_unnoticed"])
def test_the_future_of_a_record_that_the_parent_sends_fails_in_the_child(fork: str) -> None:
    run(f"""
    producer = kafka.producer(connection_pool=pool)
    early = producer.send(topic, b"early")
    early.get(timeout=30)
    done = producer.send_batch(topic, [{{"value": b"done"}}])
    done.get(timeout=30)
    hold = cluster.intercept("Produce", Hold())
    future = producer.send(topic, b"late")
    batch = producer.send_batch(topic, [{{"value": b"one"}}, {{"value": b"two"}}])
    called = []
    future.add_both(called.append)
    batch.add_both(called.append)
    hold.wait_for(1)

    def work():
        pool.stats()  # the first use tells a process that nobody told
        for waiting in (future, batch):
            for timeout in (None, 10):
                refused(lambda: waiting.get(timeout=timeout), f"by process {{os.getppid()}}", "that process sends")
        assert called == [], "callbacks are the parent's"
        later = []
        future.add_errback(later.append)
        assert isinstance(later[0], ForkedClientError)
        assert early.get().offset >= 0 and len(done.get()) == 1

    ended(child(work, {fork}))
    assert not called
    hold.release()
    assert future.get(timeout=30).offset >= 0 and len(batch.get(timeout=30)) == 2
    assert len(called) == 2
    assert values(kafka, topic, 5) == ["done", "early", "late", "one", "two"]
    """)


def test_the_lock_of_a_future_may_be_held_by_a_thread_that_is_not_there() -> None:
    run("""
    producer = kafka.producer(connection_pool=pool)
    hold = cluster.intercept("Produce", Hold())
    future, batch = producer.send(topic, b"x"), producer.send_batch(topic, [{"value": b"y"}])
    hold.wait_for(1)

    def work():
        for waiting in (future, batch):
            refused(lambda: waiting.get(), "sends")
            waiting.add_both(lambda _: None)

    with future._lock, future._produce_future._latch._cond, batch._lock, batch._counting, batch._complete._cond:
        pid = child(work)
    ended(pid)
    hold.release()
    batch.get(timeout=30)
    """)


@pytest.mark.parametrize("fork", ["os.fork", "fork_unnoticed"])
def test_clients_of_kafka_python_that_were_taken_from_the_pool_refuse(fork: str) -> None:
    run(f"""
    from kafka.protocol.metadata import ApiVersionsRequest
    pool.connect()
    client = pool.client
    admin = kafka.admin(connection_pool=pool)
    list_topics = admin.list_topics
    list_topics()
    pending = client.send(1, ApiVersionsRequest[0]())

    def work():
        for use in (
            lambda: client.send(1, ApiVersionsRequest[0]()),
            lambda: client.send_and_receive(1, ApiVersionsRequest[0]()),
            lambda: client.poll(future=pending),
            lambda: client.await_ready(1),
            lambda: client.connected(1),
            lambda: client.in_flight_request_count(),
            lambda: client.check_version(1),
            lambda: client.least_loaded_node(),
        ):
            refused(use, f"by process {{os.getppid()}}", "take pool.client here")
        refused(list_topics, "anew")
        assert topic in admin.list_topics()
        pool.connect()
        assert pool.client is not client and pool.client.send_and_receive(1, ApiVersionsRequest[0]()) is not None
        pool.disconnect()

    ended(child(work, {fork}))
    assert client.send_and_receive(1, ApiVersionsRequest[0]()) is not None
    """)


@pytest.mark.parametrize("fork", ["os.fork", "fork_unnoticed"])
def test_a_consumer_is_refused_however_it_is_used(fork: str) -> None:
    run(f"""
    from kafka.structs import TopicPartition
    consumer = kafka.consumer(topic, group_id="g", connection_pool=pool, auto_offset_reset="earliest")
    while not consumer.assignment():
        consumer.poll(timeout_ms=100)
    leaving = cluster.intercept("LeaveGroup")

    def work():
        for use in (
            lambda: next(consumer),
            lambda: [record for record in consumer],
            lambda: consumer.run(print),
            lambda: consumer.commit(),
            lambda: consumer.seek_to_end(),
            lambda: consumer.subscribe(["other"]),
            lambda: consumer.connect(),
        ):
            refused(use, "the consumer was made by process", "make a consumer here")
        consumer.wakeup()
        consumer.stop()
        assert "not attached" in repr(consumer)
        with consumer:
            pass

    ended(child(work, {fork}))
    assert leaving.requests == []
    consumer.close()
    assert len(leaving.requests) == 1
    """)


def test_the_collector_of_the_child_ends_nothing_of_the_parent() -> None:
    run("""
    leaving = cluster.intercept("LeaveGroup")
    consumer = kafka.consumer(topic, group_id="g", connection_pool=pool)
    while not consumer.assignment():
        consumer.poll(timeout_ms=100)
    producer = kafka.producer(connection_pool=pool, linger_ms=600_000, delivery_timeout_ms=3_600_000)
    of_one = kafka.producer(connection_pool=pool, transactional_id="tx")
    of_one.init_transactions()
    of_one.begin_transaction()
    of_one.send(topic, b"kept")
    future = producer.send(topic, b"waits")
    admin = kafka.admin(connection_pool=pool)
    admin.list_topics()

    pid = os.fork()
    if not pid:
        del consumer, producer, of_one, future, admin, pool, leaving
        gc.collect()
        sys.exit(0)
    ended(pid, within_s=30)
    assert leaving.requests == []
    assert not future.is_done
    producer.flush(timeout=30)
    of_one.commit_transaction()
    assert values(kafka, topic, 2) == ["kept", "waits"]
    consumer.close()
    """)


@pytest.mark.parametrize("leave", ["return", "sys.exit(0)", "os._exit(0)"])
def test_a_handler_that_forks(leave: str) -> None:
    run(f"""
    producer = kafka.producer(connection_pool=pool)
    for number in range(3):
        producer.send(topic, b"%d" % number, partition=0).get(timeout=30)
    consumer = kafka.consumer(topic, group_id="g", connection_pool=pool, auto_offset_reset="earliest",
                              enable_auto_commit=False)
    commits = cluster.intercept("OffsetCommit")
    parent, pids = os.getpid(), []

    def in_child():
        {leave}

    def handle(record):
        assert os.getpid() == parent, "a record of the parent"
        pid = os.fork()
        if not pid:
            return in_child()
        pids.append(pid)
        if len(pids) == 3:
            consumer.stop()

    try:
        consumer.run(handle)
    except ForkedClientError as error:
        assert os.getpid() != parent and "the consumer was made by" in str(error), error
        os._exit(0)
    assert os.getpid() == parent
    for pid in pids:
        ended(pid)
    assert len(commits.requests) == 1, "the children commit nothing"
    assert consumer.committed(next(iter(p for p in consumer.assignment() if p.partition == 0))) == 3
    consumer.close()
    """)


def test_a_callback_that_forks_on_the_sender_thread() -> None:
    run("""
    producer = kafka.producer(connection_pool=pool)
    pids = []

    def fork(_):
        pid = os.fork()
        if pid:
            pids.append(pid)
        else:
            producer.send(topic, b"of the child").get(timeout=30)
            pool.disconnect()
            os._exit(0)

    future = producer.send(topic, b"of the parent").add_callback(fork)
    future.get(timeout=30)
    producer.send(topic, b"after").get(timeout=30)
    ended(pids[0])
    assert values(kafka, topic, 3) == ["after", "of the child", "of the parent"]
    """)


def test_programs_that_are_run_inherit_no_connection() -> None:
    run("""
    import subprocess
    producer = kafka.producer(connection_pool=pool)
    producer.send(topic, b"x").get(timeout=30)
    consumer = kafka.consumer(topic, connection_pool=pool)
    consumer.poll(timeout_ms=100)
    assert connections_of(os.getpid())
    open_files = subprocess.run(["ls", "-l", "/proc/self/fd"], close_fds=False, capture_output=True, text=True).stdout
    assert "socket:" not in open_files and "eventpoll" not in open_files, open_files
    """)
