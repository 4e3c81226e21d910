"""The Kafka image: which one to use, and building the local one."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from .._logging import get_logger
from . import _engine, _rootfs
from ._errors import ImageBuildError, ImageNotFoundError

BUILD_LABEL = "pooledkafka.testing.build"
RECIPE = Path(__file__).with_name("image")
_REPOSITORY = "pooledkafka/kafka"

_log = get_logger(__name__)


def default_image() -> str:
    """The image that a KafkaCluster uses when given none: `$KAFKA_IMAGE`, else the tag that `build_image()` builds.

    The tag ends in a hash of everything the image is made from, so a changed recipe is another image.
    """
    return os.environ.get("KAFKA_IMAGE") or _local_image()


def _local_image() -> str:
    content = hashlib.sha256(platform.machine().encode())
    for path in (*sorted(RECIPE.iterdir()), Path(_rootfs.__file__)):
        if path.is_file():
            content.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return f"{_REPOSITORY}:{content.hexdigest()[:16]}"


def build_image() -> str:
    """Build the local Kafka image unless this machine has it already, and return its tag.

    Takes 10 to 60 s the first time, milliseconds later. Nothing is pulled: Kafka comes from Maven, Java from this
    machine's JDK. Processes that call this at once build it once. A build that fails leaves nothing behind.

    Raises:
        DockerUnavailableError: no docker package, or no daemon answers.
        ImageBuildError: a tool is missing or failed; the message carries its last output.

    Example:
        >>> tag = build_image()  # doctest: +SKIP
    """
    with closing(_engine.connect()) as client:
        return ensure_image(client, _local_image())


def ensure_image(client: Any, image: str | None) -> str:
    """Make sure that `image` is on this machine, by pulling or (the local one) by building it; return its name."""
    image = image or default_image()
    if _has_image(client, image):
        return image
    if image != _local_image():
        _pull(client, image)
        return image
    _check_tools()
    with _exclusively():
        if not _has_image(client, image):
            _build(client, image)
    return image


def check_image(client: Any, image: str | None) -> None:
    """Raise what `ensure_image` would, as far as can be told without pulling or building."""
    image = image or default_image()
    if _has_image(client, image):
        return
    if image == _local_image():
        _check_tools()
    else:
        with _registry_errors(image):
            client.images.get_registry_data(image)


def _check_tools() -> None:
    if reason := _rootfs.missing_tools():
        raise ImageBuildError(
            f"the local Kafka image cannot be built: {reason}; install what is missing, or set KAFKA_IMAGE to an "
            "official image such as apache/kafka:4.1.0"
        )


def _has_image(client: Any, image: str) -> bool:
    """Whether the daemon has the image already."""
    with _engine.translated_errors(f"look up the image {image}"):
        try:
            client.images.get(image)
        except _engine.errors().ImageNotFound:
            return False
    return True


def _pull(client: Any, image: str) -> None:
    _log.info("image.pulling", image=image)
    with _registry_errors(image):
        client.images.pull(image)


@contextmanager
def _registry_errors(image: str) -> Iterator[None]:
    with _engine.translated_errors(f"ask a registry for the image {image}"):
        try:
            yield
        except _engine.errors().APIError as error:
            raise ImageNotFoundError(
                f"the image {image} is not on this machine and cannot be pulled ({_engine.explanation(error)}); check "
                "its name, or leave image and KAFKA_IMAGE unset to use the image that is built locally"
            ) from error


@contextmanager
def _exclusively() -> Iterator[None]:
    """Hold the lock of the recipe, so that of several processes one builds and the others wait for its result.

    The lock is on the directory itself: no lock file to leave behind, and it goes with its holder's death.
    """
    import fcntl  # not on Windows, where the image cannot be built either

    descriptor = os.open(RECIPE, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # closing is not enough where a fork has the descriptor, too
        os.close(descriptor)


def _build(client: Any, image: str) -> None:
    build_id = uuid.uuid4().hex
    _log.info("image.building", image=image)
    with tempfile.TemporaryDirectory(prefix="pooledkafka-image-") as directory:
        context = Path(directory)
        shutil.copytree(RECIPE, context, dirs_exist_ok=True)
        _rootfs.assemble(context / "rootfs", context / "pom.xml")
        with _engine.translated_errors(f"build the image {image}"):
            try:
                client.images.build(
                    path=directory, tag=image, buildargs={"build": build_id}, rm=True, forcerm=True, network_mode="none"
                )
            except _engine.errors().BuildError as error:
                output = "".join(line.get("stream", "") for line in error.build_log).splitlines()[-20:]
                raise ImageBuildError(f"the Kafka image could not be built: {error}\n" + "\n".join(output)) from error
            except _engine.errors().APIError as error:
                raise ImageBuildError(f"the Kafka image could not be built: {_engine.explanation(error)}") from error
            finally:
                # A step that fails leaves the layers of the steps before it, untagged; a build that worked leaves none.
                client.images.prune(filters={"dangling": True, "label": f"{BUILD_LABEL}={build_id}"})
