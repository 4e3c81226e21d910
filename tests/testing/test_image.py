from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from pooledkafka.testing import ImageBuildError, default_image
from pooledkafka.testing import _image as image
from pooledkafka.testing import _rootfs as rootfs

Tool = Callable[[str, str], None]


@pytest.fixture
def tool(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Tool:
    """Makes the programs on PATH, by name and shell script; there are no others."""
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))

    def make(name: str, script: str) -> None:
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)

    return make


def test_the_image_that_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_IMAGE", "apache/kafka:4.1.0")
    assert default_image() == "apache/kafka:4.1.0"
    monkeypatch.setenv("KAFKA_IMAGE", "")
    assert default_image().startswith("pooledkafka/kafka:")


def test_another_recipe_is_another_image(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KAFKA_IMAGE", raising=False)
    tag = default_image()
    monkeypatch.setattr(image, "RECIPE", Path(shutil.copytree(image.RECIPE, tmp_path / "image")))
    assert default_image() == tag
    (tmp_path / "image" / "run").write_text("exec true\n")
    assert default_image() != tag


def test_the_recipe_names_no_registry() -> None:
    files = sorted(image.RECIPE.iterdir())
    assert [file.name for file in files] == ["Dockerfile", "pom.xml", "run", "warm-up"]
    for file in files:
        assert "http" not in file.read_text()


def test_tools_that_are_missing(tool: Tool) -> None:
    tool("mvn", "exit 0")
    tool("ldd", "exit 0")
    reason = rootfs.missing_tools()
    assert reason is not None
    assert reason.startswith("not on PATH: jlink, busybox (Debian: ")


@pytest.mark.parametrize("version", ["11.0.2", "none"])
def test_a_java_that_is_too_old(tool: Tool, version: str) -> None:
    for name in ("mvn", "ldd", "busybox"):
        tool(name, "exit 0")
    tool("jlink", f"echo {version}")
    assert rootfs.missing_tools() == f"Kafka 4 needs Java 17 or later, and jlink is of Java {version}"


@pytest.mark.parametrize("version", ["17.0.15", "21", "25-ea"])
def test_a_java_that_is_new_enough(tool: Tool, version: str) -> None:
    for name in ("mvn", "ldd", "busybox"):
        tool(name, "exit 0")
    tool("jlink", f"echo {version}")
    assert rootfs.missing_tools() is None


def test_not_on_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    assert rootfs.missing_tools() == "it is built from Linux libraries, and this is Darwin"


def test_a_tool_that_fails_is_quoted(tool: Tool, tmp_path: Path) -> None:
    for name in ("busybox", "jlink"):
        tool(name, "exit 0")
    tool("mvn", "echo cannot resolve kafka; echo no route >&2; exit 4")
    java = tmp_path / "rootfs" / "opt" / "java" / "openjdk"
    tool("jlink", f"/bin/mkdir -p {java}/bin {java}/lib; /bin/cp /bin/true {java}/bin/java")
    (tmp_path / "libc.so.6").touch()
    tool("ldd", f"echo 'libc.so.6 => {tmp_path}/libc.so.6 (0x1)'")
    with pytest.raises(
        ImageBuildError, match=r"mvn failed with status 4: mvn --batch-mode(.|\n)*\ncannot resolve kafka\nno route$"
    ):
        rootfs.assemble(tmp_path / "rootfs", tmp_path / "pom.xml")


def test_a_tool_that_hangs_is_ended(tool: Tool, monkeypatch: pytest.MonkeyPatch) -> None:
    tool("jlink", "exec /bin/sleep 60")
    for name in ("mvn", "ldd", "busybox"):
        tool(name, "exit 0")
    monkeypatch.setattr(rootfs, "_COMMAND_TIMEOUT_S", 0.1)
    with pytest.raises(ImageBuildError, match=r"jlink did not end within 0\.1 s: jlink --version"):
        rootfs.missing_tools()


def test_one_process_at_a_time_holds_the_recipe(tmp_path: Path) -> None:
    order = tmp_path / "order"
    program = f"""
from pathlib import Path
from pooledkafka.testing import _image
print("started", flush=True)
with _image._exclusively(), open({str(order)!r}, "a") as order:
    order.write("second")
"""
    with ExitStack() as lock:
        lock.enter_context(image._exclusively())
        with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"started\n"
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(0.3)
            order.write_text("first,")
            lock.close()
            assert process.wait(30) == 0
    assert order.read_text() == "first,second"
