"""What a forked process may do with the pools and clients that it has inherited."""

from __future__ import annotations

from tests.forking.scripts import run


def test_parent_and_child_send_over_pools_of_their_own() -> None:
    run("""
    producer = kafka.producer(connection_pool=pool)
    producer.send(topic, b"before").get(timeout=30)
    opened = len(cluster.connections)

    def work():
        assert pool.stats().connections_open == 0
        producer.send(topic, b"of the child").get(timeout=30)
        assert pool.stats().connections_open > 0
        pool.disconnect()

    pid = child(work)
    producer.send(topic, b"of the parent").get(timeout=30)
    ended(pid)
    before = cluster.connections[:opened]
    assert all(connection.closed_at is None for connection in before if "Produce" in str(connection.exchanges))
    producer.send(topic, b"after").get(timeout=30)
    assert values(kafka, topic, 4) == ["after", "before", "of the child", "of the parent"]
    """)


def test_a_record_that_waits_in_the_parent_is_sent_once() -> None:
    run("""
    producer = kafka.producer(connection_pool=pool, linger_ms=600_000, delivery_timeout_ms=3_600_000)
    future = producer.send(topic, b"waits")

    def work():
        producer.flush(timeout=5)  # of nothing: the record is the parent's
        producer.close()
        del producer.__dict__["_sender"]
        gc.collect()

    ended(child(work))
    producer.flush(timeout=30)
    assert future.succeeded()
    assert values(kafka, topic, 1) == ["waits"]
    """)


def test_an_ordinary_end_of_the_child_sends_and_waits_for_nothing() -> None:
    run("""
    producer = kafka.producer(connection_pool=pool, linger_ms=600_000, delivery_timeout_ms=3_600_000)
    producer.send(topic, b"waits")
    consumer = kafka.consumer(topic, group_id="g", connection_pool=pool)
    consumer.poll(timeout_ms=100)
    started = time.monotonic()
    pid = os.fork()
    if not pid:
        sys.exit(0)  # runs what is registered for the end of the process
    ended(pid, within_s=30)
    consumer.close()
    producer.close()
    assert values(kafka, topic, 1) == ["waits"]
    """)


def test_a_consumer_is_its_makers_alone() -> None:
    run("""
    producer = kafka.producer(connection_pool=pool)
    consumer = kafka.consumer(topic, group_id="g", connection_pool=pool, auto_offset_reset="earliest")
    unused = kafka.consumer(topic, group_id="g", connection_pool=pool)
    while not consumer.assignment():
        consumer.poll(timeout_ms=100)

    def work():
        for inherited in (consumer, unused):
            try:
                inherited.poll(timeout_ms=100)
            except ForkedClientError as error:
                assert f"made by process {os.getppid()}" in str(error) and "make a consumer here" in str(error)
            else:
                raise AssertionError("it was polled")
            inherited.close()
        with kafka.consumer(topic, group_id="other", connection_pool=pool, auto_offset_reset="earliest") as own:
            while not own.assignment():
                own.poll(timeout_ms=100)
        pool.disconnect()

    leaving = cluster.intercept("LeaveGroup")
    ended(child(work))
    assert len(leaving.requests) == 1, "only the child's own consumer has left its group"
    producer.send(topic, b"one").get(timeout=30)
    found = []
    while not found:
        found = [r.value for rs in consumer.poll(timeout_ms=5_000).values() for r in rs]
    assert found == [b"one"]
    consumer.close()
    unused.close()
    """)


def test_a_transaction_is_its_makers_alone() -> None:
    run("""
    producer = kafka.producer(connection_pool=pool, transactional_id="tx")
    producer.init_transactions()
    producer.begin_transaction()
    producer.send(topic, b"kept")

    def work():
        try:
            producer.send(topic, b"void")
        except ForkedClientError as error:
            assert "make a producer here" in str(error)
        else:
            raise AssertionError("it was sent")
        producer.close()

    ended(child(work))
    producer.commit_transaction()
    producer.close()
    assert values(kafka, topic, 1) == ["kept"]
    """)


def test_a_fork_while_other_threads_use_everything() -> None:
    run("""
    stop = threading.Event()
    errors, sent = [], [0] * 4

    def use(number):
        try:
            producer = kafka.producer(connection_pool=pool)
            while not stop.is_set():
                producer.send(topic, b"parent").get(timeout=30)
                sent[number] += 1
                pool.stats(), repr(pool)
                kafka.producer(connection_pool=pool).close()
        except BaseException as error:
            errors.append(error)

    def consume():
        try:
            with kafka.consumer(topic, group_id="g", connection_pool=pool) as consumer:
                while not stop.is_set():
                    consumer.poll(timeout_ms=10)
        except BaseException as error:
            errors.append(error)

    heard = []
    pool.add_listener(heard.append)
    shared = kafka.producer(connection_pool=pool)
    threads = [threading.Thread(target=use, args=(n,)) for n in range(4)] + [threading.Thread(target=consume)]
    for thread in threads:
        thread.start()
    shared.send(topic, b"parent").get(timeout=30)

    def work():
        shared.send(topic, b"child").get(timeout=30)
        with kafka.producer(connection_pool=pool) as own:
            own.send(topic, b"child").get(timeout=30)
        kafka.admin(connection_pool=pool).list_topics()
        pool.disconnect()

    for _ in range(10):
        ended(child(work))
    stop.set()
    for thread in threads:
        thread.join(40)
        assert not thread.is_alive()
    assert errors == []
    shared.close()
    expected = ["child"] * 20 + ["parent"] * (sum(sent) + 1)
    assert values(kafka, topic, len(expected)) == expected
    """)


def test_a_fork_within_a_fork_and_one_before_anything_is_connected() -> None:
    run("""
    producer = kafka.producer(connection_pool=pool)

    def grandchild():
        producer.send(topic, b"grandchild").get(timeout=30)
        pool.disconnect()

    def work():
        producer.send(topic, b"child").get(timeout=30)
        ended(child(grandchild))
        producer.send(topic, b"child again").get(timeout=30)
        pool.disconnect()

    ended(child(work))
    producer.send(topic, b"parent").get(timeout=30)
    assert values(kafka, topic, 4) == ["child", "child again", "grandchild", "parent"]
    """)


def test_a_pool_that_was_disconnected_stays_so() -> None:
    run("""
    from pooledkafka import PoolClosedError
    pool.connect()
    pool.disconnect()
    producer = kafka.producer(connection_pool=pool)

    def work():
        try:
            producer.send(topic, b"x")
        except PoolClosedError:
            pass
        else:
            raise AssertionError("it was sent")
        pool.connect()
        producer.send(topic, b"x").get(timeout=30)
        pool.disconnect()

    ended(child(work))
    """)


def test_multiprocessing_by_fork() -> None:
    run("""
    import multiprocessing

    def work(number):
        producer.send(topic, b"%d" % number).get(timeout=30)
        pool.disconnect()

    producer = kafka.producer(connection_pool=pool)
    producer.send(topic, b"parent").get(timeout=30)
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=work, args=(number,)) for number in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(40)
        assert process.exitcode == 0
    assert values(kafka, topic, 5) == ["0", "1", "2", "3", "parent"]
    """)
