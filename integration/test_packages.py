"""The wheel and the sdist, as they would be published, in environments with nothing else. Needs a package index."""

from __future__ import annotations

import configparser
import json
import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TRY = """
from pooledkafka import Kafka
from pooledkafka.testing import EmbeddedKafka

with EmbeddedKafka() as cluster, Kafka(**cluster.client_options()).connection_pool() as pool:
    Kafka().producer(connection_pool=pool).send("orders", b"tea").get(timeout=10)
    with Kafka().consumer("orders", connection_pool=pool, auto_offset_reset="earliest") as consumer:
        assert next(consumer).value == b"tea"
"""
IMPORTS = {
    "cli": "click",
    "codecs": "snappy, lz4.frame, zstandard",
    "django": "django, pooledkafka.contrib.django",
    "docker": "docker",
    "docs": "sphinx, furo, myst_parser",
    "embedded": "trustme",
    "lz4": "lz4.frame",
    "opentelemetry": "opentelemetry.trace",
    "prometheus": "prometheus_client",
    "snappy": "snappy",
    "zstd": "zstandard",
}
"""By each extra, what it brings."""


def settings() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


EXTRAS = sorted(set(settings()["options.extras_require"]) - {"dev"})


def run(*command: object, cwd: Path) -> str:
    """From another directory, without the tested tree on the path: what is imported is what is installed."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHONPATH", "POOLEDKAFKA"))}
    done = subprocess.run(
        [str(each) for each in command], cwd=cwd, env=env, capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


class Environment:
    """A virtual environment with nothing in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        run(sys.executable, "-m", "venv", path / "venv", cwd=path)
        self.python_path = path / "venv" / "bin" / "python"

    def install(self, *what: object) -> None:
        self.python("-m", "pip", "install", "--quiet", "--disable-pip-version-check", *what)
        self.python("-m", "pip", "check")

    def python(self, *arguments: object) -> str:
        return run(self.python_path, *arguments, cwd=self.path)

    def bin(self, name: str) -> Path:
        return self.python_path.with_name(name)


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(tmp_path)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel, made from the sdist, and the sdist."""
    to = tmp_path_factory.mktemp("dist")
    tracked = run("git", "ls-files", cwd=ROOT).splitlines()
    source = tmp_path_factory.mktemp("source")  # as a fresh clone: nothing that lies about gets in
    for name in tracked:
        if (ROOT / name).exists():  # or it is deleted and not committed yet
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    run(sys.executable, "-m", "build", "--outdir", to, source, cwd=to)
    (wheel,), (sdist,) = to.glob("*.whl"), to.glob("*.tar.gz")
    return wheel, sdist


@pytest.fixture(scope="module")
def wheel(built: tuple[Path, Path]) -> Path:
    return built[0]


def test_every_module_and_file_of_the_package_is_in_both(built: tuple[Path, Path]) -> None:
    wheel, sdist = built
    tracked = set(run("git", "ls-files", "pooledkafka", "pooledkafka_pytest.py", cwd=ROOT).splitlines())
    tracked = {name for name in tracked if (ROOT / name).exists()}
    assert {"pooledkafka/py.typed", "pooledkafka/testing/image/Dockerfile"} <= tracked
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == tracked
    with tarfile.open(sdist) as archive:
        assert tracked <= {name.partition("/")[2] for name in archive.getnames()}


def test_versions_and_changelog_agree(wheel: Path) -> None:
    version = settings()["metadata"]["version"]
    assert f"-{version}-" in wheel.name
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


def test_the_wheel_works_without_any_extra(wheel: Path, environment: Environment) -> None:
    environment.install(wheel)
    environment.python("-W", "error::ResourceWarning", "-c", TRY)
    installed = json.loads(environment.python("-m", "pip", "list", "--format", "json", "--disable-pip-version-check"))
    assert {each["name"].lower() for each in installed} - {"pip", "setuptools"} == {
        "crc32c",
        "kafka-python",
        "pooledkafka",
        "structlog",
    } | ({"typing_extensions"} & {each["name"] for each in installed})


def test_the_sdist_works(built: tuple[Path, Path], environment: Environment) -> None:
    environment.install(built[1])
    environment.python("-W", "error::ResourceWarning", "-c", TRY)


def test_it_is_typed_for_its_users(wheel: Path, environment: Environment) -> None:
    """The example has mistakes, too, each of which must be found."""
    environment.install(wheel)
    (environment.path / "typed.py").write_bytes((ROOT / "examples" / "typed.py").read_bytes())
    strict = ("--strict", "--config-file", os.devnull, "--python-executable", environment.python_path)
    run(sys.executable, "-m", "mypy", *strict, "typed.py", cwd=environment.path)


def test_each_extra_is_tested() -> None:
    assert sorted(IMPORTS) == EXTRAS


@pytest.mark.parametrize("extra", EXTRAS)
def test_an_extra_brings_what_it_is_for(extra: str, wheel: Path, environment: Environment) -> None:
    environment.install(f"pooledkafka[{extra}] @ {wheel.as_uri()}")
    environment.python("-c", f"import pooledkafka, {IMPORTS[extra]}")
    package = f"pooledkafka.contrib.{extra}"
    if any(name.startswith(package.replace(".", "/")) for name in zipfile.ZipFile(wheel).namelist()):
        environment.python("-c", f"import {package}")
    if extra == "cli" and environment.bin("pooledkafka").exists():
        run(environment.bin("pooledkafka"), "--help", cwd=environment.path)


def test_all_extras_go_together(wheel: Path, environment: Environment) -> None:
    environment.install(f"pooledkafka[{','.join(EXTRAS)}] @ {wheel.as_uri()}")
    environment.python("-c", TRY)
