"""The plugin's embedded clusters, and the choice between the backends."""

from __future__ import annotations

import pytest

from tests.testing.recording_cluster import RecordingCluster


def test_embedded_kafka_is_new_and_empty_in_each_test(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest
        from kafka import KafkaProducer
        from pooledkafka.testing import EmbeddedKafka

        @pytest.mark.parametrize("number", [1, 2])
        def test_it(embedded_kafka, number):
            assert isinstance(embedded_kafka, EmbeddedKafka) and embedded_kafka.node_ids == (1, 2, 3)
            embedded_kafka.create_topic("t")
            with KafkaProducer(**embedded_kafka.client_options()) as producer:
                assert producer.send("t", b"x").get(timeout=10).offset == 0

        @pytest.mark.embedded_kafka(brokers=1, config={"num.partitions": "4"})
        def test_other(embedded_kafka):
            assert embedded_kafka.node_ids == (1,)
    """)
    pytester.runpytest_inprocess("--strict-markers").assert_outcomes(passed=3)


@pytest.mark.parametrize(
    ("marker", "said"),
    [
        ("(1)", "*the marker embedded_kafka has (1,); it takes only keyword arguments*"),
        ("(brokers=0)", "*the marker embedded_kafka has wrong options: brokers is 0; expected *"),
        ("(image='x')", "*the marker embedded_kafka has wrong options: *image*"),
    ],
)
def test_a_wrong_marker_is_an_error_in_one_line(pytester: pytest.Pytester, marker: str, said: str) -> None:
    pytester.makepyfile(f"""
        import pytest

        @pytest.mark.embedded_kafka{marker}
        def test_it(embedded_kafka): pass
    """)
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([said])


@pytest.mark.parametrize("by", ["option", "ini"])
def test_all_fixtures_need_nothing_with_the_embedded_backend(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere")
    monkeypatch.setenv("POOLEDKAFKA_REQUIRE_DOCKER", "1")
    if by == "ini":
        pytester.makeini("[pytest]\nkafka_backend = embedded")
    pytester.makepyfile("""
        from kafka import KafkaProducer
        from kafka.structs import TopicPartition
        from pooledkafka.testing import EmbeddedKafka, Never

        def test_topics(kafka_cluster, kafka_bootstrap_servers, kafka_topic_factory):
            assert isinstance(kafka_cluster, EmbeddedKafka)
            with KafkaProducer(bootstrap_servers=kafka_bootstrap_servers) as producer:
                assert producer.partitions_for(kafka_topic_factory(partitions=3)) == {0, 1, 2}

        def test_faults(kafka_fault_cluster, kafka_topic):
            kafka_fault_cluster.kill(2)
            assert kafka_fault_cluster.leader_of(kafka_topic) in (1, 3)

            kafka_fault_cluster.intercept("Produce", Never())

        def test_healthy_again(kafka_fault_cluster, kafka_topic):
            kafka_fault_cluster.wait_until_healthy(timeout_s=0)
            with KafkaProducer(**kafka_fault_cluster.client_options()) as producer:
                producer.send(kafka_topic, b"x").get(timeout=10)
    """)
    options = ["--kafka-backend=embedded"] if by == "option" else []
    pytester.runpytest_inprocess(*options).assert_outcomes(passed=3)


def test_the_option_counts_before_the_ini_file(pytester: pytest.Pytester, made: list[RecordingCluster]) -> None:
    pytester.makeini("[pytest]\nkafka_backend = embedded")
    pytester.makepyfile("def test_it(kafka_cluster): pass")
    pytester.runpytest_inprocess("--kafka-backend=docker").assert_outcomes(passed=1)
    assert [cluster.options for cluster in made] == [{"brokers": 1, "image": None}]


def test_docker_is_used_though_the_environment_names_a_cluster(
    pytester: pytest.Pytester, made: list[RecordingCluster], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POOLEDKAFKA_BOOTSTRAP", "127.0.0.1:1")
    pytester.makepyfile("def test_it(kafka_cluster): pass")
    pytester.runpytest_inprocess("--kafka-backend=docker").assert_outcomes(passed=1)
    assert len(made) == 1


def test_an_external_cluster_that_nobody_names_is_an_error(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_it(kafka_cluster): pass")
    result = pytester.runpytest_inprocess("--kafka-backend=external")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["*no cluster is named; set POOLEDKAFKA_BOOTSTRAP=host:port"])


def test_a_backend_that_there_is_not_is_refused_at_once(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nkafka_backend = smoke")
    result = pytester.runpytest_inprocess()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: the ini option kafka_backend is 'smoke'; expected embedded, docker, external"])


def test_a_failed_test_shows_what_the_brokers_were_asked(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        def test_it(embedded_kafka, request):
            from kafka import KafkaProducer
            KafkaProducer(**embedded_kafka.client_options(), client_id="mine").close()
            assert False
    """)
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*last lines of Kafka broker 1 of <EmbeddedKafka*"])
