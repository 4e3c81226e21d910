"""Puts together the root file system of the local Kafka image, from this machine's Java and Maven's Kafka."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ._errors import ImageBuildError

JAVA_MODULES = "java.se,jdk.crypto.ec,jdk.management,jdk.naming.dns,jdk.security.auth,jdk.unsupported,jdk.zipfs"
# Their libraries need X11, fonts and sound, which a broker never loads.
DESKTOP_LIBRARIES = ("awt", "fontmanager", "javajpeg", "jawt", "jsound", "lcms", "mlib_image", "splashscreen")
BUSYBOX_APPLETS = ("cat", "chown", "grep", "id", "ip", "ls", "mkdir", "ps", "rm", "sh", "sleep")
ETC_FILES = {
    "passwd": "root:x:0:0:root:/:/bin/sh\nappuser:x:1000:1000::/tmp:/bin/sh\n",
    "group": "root:x:0:\nappuser:x:1000:\n",
    "nsswitch.conf": "hosts: files dns\n",
}
DIRECTORIES = (
    "etc/kafka/docker",
    "etc/kafka/secrets",
    "mnt/shared/config",
    "opt/kafka/cds",
    "opt/kafka/config",
    "var/lib/kafka/data",
)
# Parts of the C library that ldd does not show here: what it loads by name to resolve hosts, before 2.34, and what the
# libraries in Kafka's jars for its codecs were linked to; zstd's to libpthread, which is in libc itself since 2.34.
UNSEEN_LIBRARIES = (
    "libdl.so.2",
    "libm.so.6",
    "libnss_dns.so.2",
    "libnss_files.so.2",
    "libpthread.so.0",
    "libresolv.so.2",
    "librt.so.1",
)
_COMMAND_TIMEOUT_S = 300


def missing_tools() -> str | None:
    """What keeps this machine from building the image, in one phrase; None when nothing does."""
    if platform.system() != "Linux":
        return f"it is built from Linux libraries, and this is {platform.system()}"
    missing = [tool for tool in ("jlink", "mvn", "busybox", "ldd") if shutil.which(tool) is None]
    if missing:
        return f"not on PATH: {', '.join(missing)} (Debian: openjdk-17-jdk-headless, maven, busybox-static)"
    version = _run("jlink", "--version").strip()
    if not (major := re.match(r"\d+", version)) or int(major[0]) < 17:
        return f"Kafka 4 needs Java 17 or later, and jlink is of Java {version}"
    return None


def assemble(rootfs: Path, pom: Path) -> None:
    """Fill the directory `rootfs`. Raises ImageBuildError with the last output of the command that failed."""
    for directory in (*DIRECTORIES, "bin", "tmp"):
        (rootfs / directory).mkdir(parents=True)
    (rootfs / "tmp").chmod(0o1777)
    for name, content in ETC_FILES.items():
        (rootfs / "etc" / name).write_text(content)
    shutil.copy(str(shutil.which("busybox")), rootfs / "bin" / "busybox")
    for applet in BUSYBOX_APPLETS:
        (rootfs / "bin" / applet).symlink_to("busybox")
    with ThreadPoolExecutor(2) as pool:
        for step in (pool.submit(_add_java, rootfs), pool.submit(_add_kafka, rootfs, pom)):
            step.result()


def _add_java(rootfs: Path) -> None:
    java = rootfs / "opt" / "java" / "openjdk"
    java.parent.mkdir(parents=True)
    _run(
        *("jlink", "--add-modules", JAVA_MODULES, "--output", str(java)),
        *("--strip-java-debug-attributes", "--no-man-pages", "--no-header-files"),
    )
    for name in DESKTOP_LIBRARIES:
        for library in (java / "lib").glob(f"lib{name}*.so"):
            library.unlink()
    # The base archive, which the archive made by the warm-up builds upon.
    _run(str(java / "bin" / "java"), "-Xshare:dump")
    _add_libraries(rootfs, [java / "bin" / "java", *(java / "lib").rglob("*.so")])


def _add_libraries(rootfs: Path, binaries: list[Path]) -> None:
    """Copy each library of this machine that the binaries are linked to, to the same path under `rootfs`."""
    words = _run("ldd", *map(str, binaries)).split()
    libraries = {Path(word) for word in words if word.startswith("/") and not word.startswith(str(rootfs))}
    for libc in [library for library in libraries if library.name == "libc.so.6"]:
        libraries.update(path for name in UNSEEN_LIBRARIES if (path := libc.with_name(name)).exists())
    for library in libraries:
        target = rootfs / library.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, target)


def _add_kafka(rootfs: Path, pom: Path) -> None:
    _run(
        *("mvn", "--batch-mode", "--quiet", "--file", str(pom), "dependency:copy-dependencies"),
        *("-DincludeScope=runtime", f"-DoutputDirectory={rootfs / 'opt' / 'kafka' / 'libs'}"),
    )


def _run(*command: str) -> str:
    try:
        done = subprocess.run(
            command,
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_COMMAND_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise ImageBuildError(f"{command[0]} did not end within {_COMMAND_TIMEOUT_S} s: {' '.join(command)}") from error
    if done.returncode != 0:
        output = "\n".join((done.stdout + done.stderr).splitlines()[-20:])
        raise ImageBuildError(f"{command[0]} failed with status {done.returncode}: {' '.join(command)}\n{output}")
    return done.stdout
