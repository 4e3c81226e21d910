"""The pytest plugin: its fixtures without Docker, and what it does to a run that does not use them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

import pytest
from kafka.util import ensure_valid_topic_name

from pooledkafka.testing._pytest_topics import _topic_name
from tests.testing.one_broker import OneBroker
from tests.testing.recording_cluster import RecordingCluster

ONE_TEST_FOR_EACH_FIXTURE = """
    def test_cluster(kafka_cluster): pass
    def test_addresses(kafka_bootstrap_servers): pass
    def test_topic(kafka_topic): pass
    def test_topics(kafka_topic_factory): pass
    def test_faults(kafka_fault_cluster): pass
"""


@pytest.fixture
def no_docker(monkeypatch: pytest.MonkeyPatch, pytester: pytest.Pytester) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{pytester.path}/docker.sock")


@pytest.fixture
def broker(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Iterator[OneBroker]:
    """A running cluster, which the environment names."""
    with OneBroker() as broker:
        monkeypatch.setenv("POOLEDKAFKA_BOOTSTRAP", broker.address)
        yield broker


def test_a_run_that_uses_no_fixture_of_it_imports_nothing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import sys

        def test_nothing():
            assert "pooledkafka_pytest" in sys.modules
            assert not {"kafka", "docker", "structlog", "pooledkafka"} & sys.modules.keys()

        def test_that_fails():
            assert False
    """)
    pytester.runpytest_subprocess("-Werror", "--strict-markers").assert_outcomes(passed=1, failed=1)


def test_without_a_daemon_tests_are_skipped_and_say_why(pytester: pytest.Pytester, no_docker: None) -> None:
    pytester.makepyfile(ONE_TEST_FOR_EACH_FIXTURE)
    result = pytester.runpytest_inprocess("-rs")
    result.assert_outcomes(skipped=5)
    result.stdout.fnmatch_lines(["*no Kafka cluster can be started: no Docker daemon answers (*No such file*"])


def test_without_the_docker_package_tests_are_skipped_and_say_why(
    pytester: pytest.Pytester, no_docker: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "docker", None)
    pytester.makepyfile(ONE_TEST_FOR_EACH_FIXTURE)
    result = pytester.runpytest_inprocess("-rs")
    result.assert_outcomes(skipped=5)
    result.stdout.fnmatch_lines(["*the docker package is not installed; install it with: pip install*"])


def test_where_docker_is_required_they_fail_and_say_why(
    pytester: pytest.Pytester, no_docker: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POOLEDKAFKA_REQUIRE_DOCKER", "1")
    pytester.makepyfile(ONE_TEST_FOR_EACH_FIXTURE)
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(errors=5)
    result.stdout.fnmatch_lines(
        ["POOLEDKAFKA_REQUIRE_DOCKER=1, but no Kafka cluster can be started: no Docker daemon answers (*"]
    )


def test_a_running_cluster_is_used_where_the_environment_names_one(
    pytester: pytest.Pytester, broker: OneBroker
) -> None:
    pytester.makepyfile(f"""
        def test_it(kafka_cluster, kafka_bootstrap_servers, kafka_topic):
            assert kafka_bootstrap_servers == kafka_cluster.bootstrap_servers == {broker.address!r}
            assert not kafka_cluster.supports_faults
    """)
    pytester.runpytest_inprocess().assert_outcomes(passed=1)


@pytest.mark.parametrize(
    ("bootstrap", "said"),
    [("127.0.0.1:1", "*no Kafka broker answers at 127.0.0.1:1 *"), ("host:port", "POOLEDKAFKA_BOOTSTRAP: *host:port*")],
)
def test_a_running_cluster_that_cannot_be_used_is_an_error_in_one_line(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, bootstrap: str, said: str
) -> None:
    monkeypatch.setenv("POOLEDKAFKA_BOOTSTRAP", bootstrap)
    pytester.makepyfile("def test_it(kafka_cluster): pass")
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([said])
    result.stdout.no_fnmatch_line("*Traceback*")


def test_each_test_has_topics_of_its_own_that_are_ready_and_then_deleted(
    pytester: pytest.Pytester, broker: OneBroker
) -> None:
    pytester.makepyfile("""
        import pytest
        from kafka.admin import KafkaAdminClient

        def leaders(bootstrap_servers, topic):
            with KafkaAdminClient(bootstrap_servers=bootstrap_servers) as admin:
                (found,) = [each for each in admin.describe_topics() if each["name"] == topic]
            return [partition["leader_id"] for partition in found["partitions"]]

        @pytest.mark.parametrize("number", [1.5, "ü/ü"])
        def test_one(kafka_bootstrap_servers, kafka_topic, number):
            assert leaders(kafka_bootstrap_servers, kafka_topic) == [1]

        def test_more(kafka_bootstrap_servers, kafka_topic_factory):
            first, second = kafka_topic_factory(), kafka_topic_factory(partitions=3)
            assert first != second
            assert leaders(kafka_bootstrap_servers, second) == [1, 1, 1]
    """)
    pytester.runpytest_inprocess().assert_outcomes(passed=3)
    assert broker.topics == {}
    names = [re.sub("[0-9a-f]{12}$", "", name) for name in broker.deleted]
    assert names == ["test_one-1-5-", "test_one-xfc-xfc-", "test_more-", "test_more-"]
    assert len(set(broker.deleted)) == 4


@pytest.mark.parametrize("test", ["test_it", "test_it[a b-ü/{}]", "x" * 300, "[]"])
def test_a_topic_is_named_after_its_test_and_never_twice(test: str) -> None:
    names = {_topic_name(test) for _ in range(100)}
    assert len(names) == 100
    for name in names:
        ensure_valid_topic_name(name)
        assert name.startswith(re.sub("[^a-z_].*", "", test)[:50] or "test-")


def test_a_topic_that_cannot_be_deleted_any_more_is_no_error(pytester: pytest.Pytester, broker: OneBroker) -> None:
    pytester.makepyfile("""
        from kafka.admin import KafkaAdminClient

        def test_it(kafka_bootstrap_servers, kafka_topic):
            with KafkaAdminClient(bootstrap_servers=kafka_bootstrap_servers) as admin:
                admin.delete_topics([kafka_topic])
    """)
    pytester.runpytest_inprocess().assert_outcomes(passed=1)
    assert len(broker.deleted) == 1


def test_no_client_of_the_plugin_runs_beside_a_test(pytester: pytest.Pytester, broker: OneBroker) -> None:
    pytester.makepyfile("""
        import threading

        def test_it(kafka_topic):
            assert not [thread for thread in threading.enumerate() if thread.name.startswith("kafka")]
    """)
    pytester.runpytest_inprocess().assert_outcomes(passed=1)


def test_workers_of_xdist_never_share_a_topic(pytester: pytest.Pytester, broker: OneBroker) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.mark.parametrize("number", range(8))
        def test_it(kafka_topic, number): pass
    """)
    pytester.runpytest_subprocess("-n", "2").assert_outcomes(passed=8)
    assert len(broker.deleted) == len(set(broker.deleted)) == 8
    assert broker.topics == {}


def test_one_cluster_serves_the_session_and_is_closed_after_it(
    pytester: pytest.Pytester, made: list[RecordingCluster]
) -> None:
    body = "def test_it(kafka_cluster): assert kafka_cluster.calls == ['open']"
    pytester.makepyfile(test_a=body, test_b=body)
    pytester.runpytest_inprocess().assert_outcomes(passed=2)
    assert [cluster.calls for cluster in made] == [["open", "close"]]


@pytest.mark.parametrize(
    ("arguments", "ini", "environment", "options"),
    [
        ([], "", None, {"brokers": 1, "image": None}),
        ([], "kafka_brokers = 3\nkafka_image = of-ini", None, {"brokers": 3, "image": "of-ini"}),
        ([], "kafka_image = of-ini", "of-environment", {"brokers": 1, "image": "of-environment"}),
        (
            ["--kafka-brokers=1", "--kafka-image=of-option"],
            "kafka_brokers = 3\nkafka_image = of-ini",
            "of-environment",
            {"brokers": 1, "image": "of-option"},
        ),
    ],
)
def test_the_nearest_choice_of_brokers_and_image_counts(
    pytester: pytest.Pytester,
    made: list[RecordingCluster],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    ini: str,
    environment: str | None,
    options: dict[str, object],
) -> None:
    if environment is not None:
        monkeypatch.setenv("KAFKA_IMAGE", environment)
    pytester.makeini(f"[pytest]\n{ini}")
    pytester.makepyfile("def test_it(kafka_cluster): pass")
    pytester.runpytest_inprocess(*arguments).assert_outcomes(passed=1)
    assert [cluster.options for cluster in made] == [options]


def test_a_wrong_number_of_brokers_is_refused_at_once(pytester: pytest.Pytester) -> None:
    result = pytester.runpytest_inprocess("--kafka-brokers=2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*argument --kafka-brokers: invalid choice: '2'*"])

    pytester.makeini("[pytest]\nkafka_brokers = many")
    result = pytester.runpytest_inprocess()
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["ERROR: the ini option kafka_brokers is 'many'; expected 1 or 3"])


def test_the_report_of_a_failed_test_has_the_brokers_last_lines(
    pytester: pytest.Pytester, made: list[RecordingCluster]
) -> None:
    pytester.makepyfile("""
        def test_direct(kafka_cluster): assert False
        def test_indirect(kafka_topic_factory): assert False
        def test_good(kafka_cluster): pass
        def test_other(): assert False
    """)
    result = pytester.runpytest_inprocess("--kafka-brokers=3")
    result.assert_outcomes(passed=1, failed=3)
    for node_id in (1, 2, 3):
        assert result.stdout.str().count(f"\nbroker {node_id} says this in at most 40 lines\n") == 2
