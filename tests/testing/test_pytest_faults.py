"""The plugin's clusters for tests that make brokers fail: which there are, when they are healed, and when replaced."""

from __future__ import annotations

import pytest

from tests.testing.recording_cluster import RecordingCluster

UNDO = [f"{undo} {node_id}" for node_id in (1, 2, 3) for undo in ("resume", "start", "heal")]


def test_tests_of_a_module_share_a_cluster_that_is_healed_after_each_and_healthy_before_the_next(
    pytester: pytest.Pytester, made: list[RecordingCluster]
) -> None:
    body = """
        def test_first(kafka_fault_cluster): kafka_fault_cluster.kill(2)
        def test_second(kafka_fault_cluster): assert False
        def test_third(kafka_fault_cluster): pass
    """
    pytester.makepyfile(test_a=body, test_b=body)
    pytester.runpytest_inprocess("--kafka-image=of-option").assert_outcomes(passed=4, failed=2)
    calls = ["open", "kill 2", *UNDO, "healthy?", *UNDO, "healthy?", *UNDO, "close"]
    assert [cluster.calls for cluster in made] == [calls, calls]
    assert [cluster.options for cluster in made] == [{"brokers": 3, "image": "of-option"}] * 2


def test_a_cluster_that_does_not_recover_is_replaced(
    pytester: pytest.Pytester, made: list[RecordingCluster], caplog: pytest.LogCaptureFixture
) -> None:
    pytester.makepyfile("""
        def test_first(kafka_fault_cluster): kafka_fault_cluster.healthy = False
        def test_second(kafka_fault_cluster): pass
    """)
    pytester.runpytest_inprocess().assert_outcomes(passed=2)
    assert [cluster.calls for cluster in made] == [["open", *UNDO, "healthy?", "close"], ["open", *UNDO, "close"]]


def test_the_marker_chooses_another_cluster(pytester: pytest.Pytester, made: list[RecordingCluster]) -> None:
    pytester.makepyfile("""
        import pytest

        one = pytest.mark.kafka_faults(brokers=1, listeners=["scram"], config={"a.b": "c"}, image="of-marker")

        @one
        def test_first(kafka_fault_cluster): pass
        @one
        def test_same(kafka_fault_cluster): pass
        def test_other(kafka_fault_cluster): pass
    """)
    pytester.runpytest_inprocess("--strict-markers").assert_outcomes(passed=3)
    assert [cluster.options for cluster in made] == [
        {"brokers": 1, "listeners": ["scram"], "config": {"a.b": "c"}, "image": "of-marker"},
        {"brokers": 3, "image": None},
    ]
    assert all(cluster.calls.count("close") == 1 for cluster in made)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("3", "the marker kafka_faults has (3,); it takes only keyword arguments"),
        ("brokers=2", "the marker kafka_faults has wrong options: brokers is 2; expected 1 or 3*"),
        ("broker=1", "the marker kafka_faults has wrong options: *unexpected keyword argument 'broker'*"),
    ],
)
def test_a_wrong_marker_is_an_error_in_one_line(
    pytester: pytest.Pytester, made: list[RecordingCluster], arguments: str, said: str
) -> None:
    pytester.makepyfile(f"""
        import pytest

        @pytest.mark.kafka_faults({arguments})
        def test_it(kafka_fault_cluster): pass
    """)
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines([said])
    assert made == []


def test_the_marker_selects_every_test_of_a_fault_cluster(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("""
        import pytest

        @pytest.fixture
        def broken(kafka_fault_cluster): pass

        def test_direct(kafka_fault_cluster): pass
        def test_indirect(broken): pass
        @pytest.mark.kafka_faults(brokers=1)
        def test_marked(kafka_fault_cluster): pass
        def test_other(kafka_cluster): pass
    """)
    result = pytester.runpytest_inprocess("--collect-only", "-q", "-m", "kafka_faults")
    result.stdout.fnmatch_lines(["*::test_direct", "*::test_indirect", "*::test_marked", "3/4 tests collected*"])


def test_topics_of_a_fault_test_are_made_on_its_cluster(
    pytester: pytest.Pytester, made: list[RecordingCluster]
) -> None:
    pytester.makepyfile("""
        def test_it(kafka_topic_factory, kafka_fault_cluster):
            assert kafka_topic_factory.cluster is kafka_fault_cluster
    """)
    pytester.runpytest_inprocess().assert_outcomes(passed=1)
    assert len(made) == 1
