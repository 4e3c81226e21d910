from __future__ import annotations

import sys
from pathlib import Path

import pytest
import requests
from docker.errors import APIError, DockerException

from pooledkafka.testing import (
    ClusterError,
    DockerUnavailableError,
    KafkaCluster,
    build_image,
    docker_unavailable_reason,
)
from pooledkafka.testing._engine import translated_errors
from pooledkafka.testing._ports import pick_free_ports


def test_without_the_docker_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "docker", None)
    message = r"the docker package is not installed; install it with: pip install 'pooledkafka\[docker\]'"
    with pytest.raises(DockerUnavailableError, match=message):
        KafkaCluster().open()
    with pytest.raises(DockerUnavailableError, match=message):
        build_image()
    assert "the docker package is not installed" in str(docker_unavailable_reason())


def test_no_daemon_at_a_socket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    with pytest.raises(
        DockerUnavailableError, match=r"no Docker daemon answers \(.*No such file or directory\); start one, or point"
    ):
        KafkaCluster().open()


def test_no_daemon_at_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"tcp://127.0.0.1:{pick_free_ports(1)[0]}")
    reason = docker_unavailable_reason()
    assert reason is not None
    assert reason.startswith("no Docker daemon answers (")
    assert "Connection refused" in reason


def test_no_address_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "nowhere")
    assert "no Docker daemon answers" in str(docker_unavailable_reason())


def test_what_the_daemon_refuses_is_told_in_its_own_words() -> None:
    with pytest.raises(ClusterError) as error, translated_errors("pause broker 2"):
        raise APIError("409 Client Error", explanation="it is not running")
    assert str(error.value) == "Docker could not pause broker 2: it is not running"
    assert not isinstance(error.value, DockerUnavailableError)
    with (
        pytest.raises(ClusterError, match="Docker could not pause broker 2: 409 Client Error"),
        translated_errors("pause broker 2"),
    ):
        raise APIError("409 Client Error")


@pytest.mark.parametrize("error", [requests.ConnectionError("reset"), DockerException("reset")])
def test_a_daemon_that_stops_answering(error: Exception) -> None:
    message = r"the Docker daemon stopped answering while asked to pause broker 2 \(reset\)"
    with pytest.raises(DockerUnavailableError, match=message), translated_errors("pause broker 2"):
        raise error


def test_other_errors_pass() -> None:
    with pytest.raises(ZeroDivisionError), translated_errors("pause broker 2"):
        raise ZeroDivisionError
