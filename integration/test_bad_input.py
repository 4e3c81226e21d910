"""What goes wrong gets one clear error, and leaves nothing behind."""

from __future__ import annotations

import shutil
import socket
import tempfile
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import docker
import pytest

from integration.remains import RecordedReaper, wait_until_gone
from pooledkafka.testing import (
    BrokerStartError,
    DockerUnavailableError,
    ImageBuildError,
    ImageNotFoundError,
    KafkaCluster,
    PortTakenError,
    UnhealthyClusterError,
    build_image,
    docker_unavailable_reason,
)
from pooledkafka.testing import _deployment as deployment
from pooledkafka.testing import _image as image
from pooledkafka.testing import _rootfs as rootfs
from pooledkafka.testing._ports import pick_free_ports

NO_REGISTRY = "127.0.0.1:1/no-such-image:1"


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[RecordedReaper]:
    """What the clusters of the test made."""
    RecordedReaper.made = []
    monkeypatch.setattr(deployment, "Reaper", RecordedReaper)
    return RecordedReaper.made


@contextmanager
def listening() -> Iterator[int]:
    """A port of 127.0.0.1 that another process listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", pick_free_ports(1)[0]))
        listener.listen()
        yield listener.getsockname()[1]


def test_an_unknown_image(made: list[RecordedReaper]) -> None:
    with pytest.raises(
        ImageNotFoundError, match=rf"the image {NO_REGISTRY} is not on this machine and cannot be pulled"
    ):
        KafkaCluster(image=NO_REGISTRY).open()
    assert [cluster.remains() for cluster in made] == [[]]
    assert "cannot be pulled" in str(docker_unavailable_reason(NO_REGISTRY))


def test_no_reason_where_all_is_there() -> None:
    build_image()
    assert docker_unavailable_reason() is None


def test_a_dead_daemon(made: list[RecordedReaper], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    with pytest.raises(DockerUnavailableError, match=r"no Docker daemon answers.*No such file"):
        KafkaCluster().open()
    assert made == []
    assert "no Docker daemon answers" in str(docker_unavailable_reason())


def test_a_port_taken_in_the_last_moment_is_replaced(
    made: list[RecordedReaper], monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening() as taken:
        choices = iter([[taken], pick_free_ports(1)])
        monkeypatch.setattr(deployment, "pick_free_ports", lambda count: next(choices))
        with KafkaCluster() as cluster:
            assert not cluster.bootstrap_servers.endswith(f":{taken}")
            cluster.wait_until_healthy(10)
    assert [cluster.remains() for cluster in made] == [[]]


def test_a_port_that_stays_taken(made: list[RecordedReaper], monkeypatch: pytest.MonkeyPatch) -> None:
    with listening() as taken:
        monkeypatch.setattr(deployment, "pick_free_ports", lambda count: [taken])
        with pytest.raises(PortTakenError, match=rf"broker 1 cannot have its port on 127.0.0.1 \({taken}\)"):
            KafkaCluster().open()
    assert [cluster.remains() for cluster in made] == [[]]


def test_a_port_taken_while_its_broker_is_down(made: list[RecordedReaper]) -> None:
    with KafkaCluster() as cluster:
        cluster.kill(1)
        with socket.socket() as listener:
            host, port = cluster.address_of(1).split(":")
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, int(port)))
            listener.listen()
            with pytest.raises(PortTakenError, match=port):
                cluster.start(1)
        with pytest.raises(UnhealthyClusterError, match=r"broker 1: no answer(.|\n)*broker 1 exited with status"):
            cluster.wait_until_healthy(0.5)
        cluster.start(1)
        cluster.wait_until_healthy(30)
    assert [cluster.remains() for cluster in made] == [[]]


def test_a_broker_that_dies_while_starting(made: list[RecordedReaper]) -> None:
    with pytest.raises(BrokerStartError, match=r"broker 1 exited with status 1 while starting") as error:
        KafkaCluster(config={"num.network.threads": "many"}).open()
    assert "Invalid value many for configuration num.network.threads" in str(error.value)
    assert [cluster.remains() for cluster in made] == [[]]


def test_a_cluster_that_is_not_ready_in_time(made: list[RecordedReaper]) -> None:
    with pytest.raises(BrokerStartError, match=r"not ready after 0.1 s: broker 1(.|\n)*broker 1 is running; the end"):
        KafkaCluster(timeout_s=0.1).open()
    assert [cluster.remains() for cluster in made] == [[]]


def test_a_daemon_that_dies_while_a_cluster_starts(made: list[RecordedReaper], monkeypatch: pytest.MonkeyPatch) -> None:
    with DaemonProxy() as proxy:
        monkeypatch.setenv("DOCKER_HOST", proxy.address)

        def cut_off(count: int) -> list[int]:
            proxy.close()
            return pick_free_ports(count)

        monkeypatch.setattr(deployment, "pick_free_ports", cut_off)
        with pytest.raises(DockerUnavailableError, match="the Docker daemon stopped answering while asked to create"):
            KafkaCluster().open()
        monkeypatch.delenv("DOCKER_HOST")
        (cluster,) = made
        assert any("network" in remain for remain in cluster.remains())
        proxy.open()  # the daemon is back: the reaper has kept trying
        wait_until_gone(cluster.label, [], 15)
        cluster._process.wait(10)
    assert cluster.remains() == []


def test_a_build_whose_tool_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "mvn").write_text("#!/bin/sh\necho no repository answers\nexit 3\n")
    (tmp_path / "mvn").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with (
        failing_build(monkeypatch, tmp_path),
        pytest.raises(ImageBuildError, match=r"mvn failed with status 3(.|\n)*no repository answers"),
    ):
        build_image()


def test_a_build_that_fails_in_docker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def assemble(directory: Path, pom: Path) -> None:
        (directory / "bin").mkdir(parents=True)
        for name in ("busybox", "sh"):
            shutil.copy(str(shutil.which("busybox")), directory / "bin" / name)

    monkeypatch.setattr(rootfs, "assemble", assemble)
    recipe = tmp_path / "recipe"
    recipe.mkdir()
    (recipe / "Dockerfile").write_text(
        "FROM scratch\nARG build\nLABEL pooledkafka.testing.build=$build\nCOPY rootfs /\n"
        'RUN ["/bin/sh", "-c", "echo there is no broker; exit 7"]\n'
    )
    monkeypatch.setattr(image, "RECIPE", recipe)
    with (
        failing_build(monkeypatch, tmp_path),
        pytest.raises(ImageBuildError, match=r"returned a non-zero code: 7(.|\n)*there is no broker"),
    ):
        build_image()


@contextmanager
def failing_build(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Make the local image one that is not there yet; check that the block leaves no image, container or file."""
    monkeypatch.setattr(image, "_REPOSITORY", f"pooledkafka/broken-{uuid.uuid4().hex}")
    build_id = uuid.uuid4()
    monkeypatch.setattr(uuid, "uuid4", lambda: build_id)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    yield
    label = f"{image.BUILD_LABEL}={build_id.hex}"
    with closing(docker.from_env()) as client:
        assert client.images.list(all=True, filters={"label": label}) == []
        assert client.containers.list(all=True, filters={"label": label}) == []
    assert list(temporary.iterdir()) == []


class DaemonProxy:
    """Docker's socket on a port of 127.0.0.1 that can be closed, as if the daemon had died, and opened again."""

    def __init__(self) -> None:
        self.port = pick_free_ports(1)[0]
        self.address = f"tcp://127.0.0.1:{self.port}"
        self._sockets: list[socket.socket] = []  # guarded by _lock
        self._lock = threading.Lock()

    def __enter__(self) -> DaemonProxy:
        self.open()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def open(self) -> None:
        """Answer connections."""
        listener = self._track(socket.create_server(("127.0.0.1", self.port)))
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def close(self) -> None:
        """Reset every connection and refuse new ones."""
        with self._lock:
            sockets, self._sockets = self._sockets, []
        for each in sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _track(self, each: socket.socket) -> socket.socket:
        with self._lock:
            self._sockets.append(each)
        return each

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client = self._track(listener.accept()[0])
            except OSError:
                return
            daemon = self._track(socket.socket(socket.AF_UNIX))
            daemon.connect("/var/run/docker.sock")
            for pair in ((client, daemon), (daemon, client)):
                threading.Thread(target=_copy, args=pair, daemon=True).start()


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65536):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
