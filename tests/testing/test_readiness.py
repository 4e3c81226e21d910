from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from kafka.protocol.metadata import MetadataRequest, MetadataResponse

from pooledkafka.testing._ports import HOST, pick_free_ports
from pooledkafka.testing._readiness import Address, NoAnswerError, problem, view_of, wait_for

Topic = MetadataResponse.MetadataResponseTopic
Partition = Topic.MetadataResponsePartition
Broker = MetadataResponse.MetadataResponseBroker
Answer = Callable[[bytes], bytes]


class FakeBroker:
    """Answers each connection's first request with what `answer` makes of it; an empty answer closes."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._listener = socket.create_server((HOST, 0))
        self.address: Address = self._listener.getsockname()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self) -> FakeBroker:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                if answer := self._answer(connection.recv(65536)):
                    connection.sendall(answer)
                    connection.recv(1)  # until the client closes


def metadata(brokers: dict[int, Address], topics: list[Any]) -> Answer:
    def answer(request: bytes) -> bytes:
        _, api_key, version, correlation_id = struct.unpack_from(">ihhi", request)
        assert api_key == MetadataRequest.API_KEY
        response = MetadataResponse[version](
            brokers=[Broker(node_id=node, host=host, port=port, rack=None) for node, (host, port) in brokers.items()],
            topics=topics,
            cluster_id="fake",
            controller_id=min(brokers),
            throttle_time_ms=0,
        )
        response.with_header(correlation_id=correlation_id)
        return bytes(response.encode(header=True, framed=True))

    return answer


def topic(leader: int = 1, in_sync: tuple[int, ...] = (1, 2), epoch: int = 5, error: int = 0) -> Any:
    partition = Partition(
        error_code=0,
        partition_index=0,
        leader_id=leader,
        leader_epoch=epoch,
        replica_nodes=[1, 2],
        isr_nodes=list(in_sync),
        offline_replicas=[],
    )
    return Topic(error_code=error, name="orders", is_internal=False, partitions=[partition])


@pytest.fixture
def cluster() -> Iterator[Callable[..., dict[int, Address]]]:
    """Starts brokers 1 and 2, whose answers may change, and returns their addresses."""
    with ExitStack() as stack:

        def start(topics_of_1: list[Any], topics_of_2: list[Any], seen_by_2: tuple[int, ...] = (1, 2)) -> Any:
            answers: list[Answer] = []
            fakes = [stack.enter_context(FakeBroker(lambda data, i=i: answers[i](data))) for i in (0, 1)]  # type: ignore[misc]
            addresses = {node: fake.address for node, fake in zip((1, 2), fakes, strict=True)}
            answers.append(metadata(addresses, topics_of_1))
            answers.append(metadata({node: addresses[node] for node in seen_by_2}, topics_of_2))
            return addresses

        yield start


def test_a_broker_says_what_it_knows() -> None:
    with FakeBroker(metadata({1: ("a", 1), 2: ("b", 2)}, [topic()])) as broker:
        view = view_of(broker.address)
    assert view.brokers == {1: ("a", 1), 2: ("b", 2)}
    assert view.partitions == {("orders", 0): (1, 5, frozenset({1, 2}), frozenset({1, 2}))}
    assert view.broken_topics == frozenset()


def test_an_answer_in_many_pieces() -> None:
    answer = metadata({1: ("a", 1)}, [topic()])
    with socket.create_server((HOST, 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for byte in answer(connection.recv(65536)):
                    connection.sendall(bytes([byte]))
                connection.recv(1)

        thread = threading.Thread(target=serve)
        thread.start()
        assert view_of(listener.getsockname()).brokers == {1: ("a", 1)}
        thread.join(10)


def test_nobody_listens() -> None:
    (port,) = pick_free_ports(1)
    with pytest.raises(NoAnswerError, match=f"no answer from 127.0.0.1:{port} .*Connection refused"):
        view_of((HOST, port))


def test_a_broker_that_closes() -> None:
    with FakeBroker(lambda request: b"") as broker, pytest.raises(NoAnswerError, match="the connection was closed"):
        view_of(broker.address)


def test_a_broker_that_accepts_and_stays_silent() -> None:
    # As Docker's proxy does for a broker that is paused: the port is open, and nothing comes.
    with socket.create_server((HOST, 0)) as listener, pytest.raises(NoAnswerError, match="timed out"):
        view_of(listener.getsockname(), timeout_s=0.2)


def test_something_that_is_no_broker() -> None:
    with FakeBroker(lambda request: b"HTTP/1.1 400 Bad Request\r\n\r\n") as server, pytest.raises(NoAnswerError):
        view_of(server.address)


def test_a_healthy_cluster(cluster: Any) -> None:
    assert problem(cluster([topic()], [topic()])) is None


def test_a_broker_that_is_fenced(cluster: Any) -> None:
    assert problem(cluster([topic()], [topic()], seen_by_2=(2,))) == "broker 2 does not see broker 1"


def test_a_partition_without_leader(cluster: Any) -> None:
    assert problem(cluster([topic(leader=-1)], [topic()])) == "partition orders-0 has no leader"


def test_a_replica_that_lags(cluster: Any) -> None:
    problem_found = problem(cluster([topic()], [topic(in_sync=(1,))]))
    assert problem_found == "partition orders-0 has replicas [1, 2], in sync only [1]"


def test_a_topic_in_error(cluster: Any) -> None:
    assert problem(cluster([topic(error=5)], [topic()])) == "broker 1 reports an error for topic orders"


@pytest.mark.parametrize("other", [[], [topic(leader=2)], [topic(epoch=6)]], ids=["absent", "leader", "epoch"])
def test_brokers_that_do_not_agree(cluster: Any, other: list[Any]) -> None:
    assert problem(cluster([topic()], other)) == "the brokers do not agree yet on topics and leaders"


def test_a_broker_that_does_not_answer(cluster: Any) -> None:
    addresses = cluster([topic()], [topic()])
    (port,) = pick_free_ports(1)
    found = problem({**addresses, 2: (HOST, port)})
    assert found is not None
    assert found.startswith("broker 2: no answer from")


def test_waiting_ends_when_there_is_no_problem_left() -> None:
    problems = iter(["first", "second", None])
    assert wait_for(lambda: next(problems), 10) is None


def test_waiting_returns_the_last_problem() -> None:
    asked: list[int] = []

    def check() -> str:
        asked.append(1)
        return f"problem {len(asked)}"

    assert wait_for(check, 0.25) == f"problem {len(asked)}"
    assert len(asked) > 1
