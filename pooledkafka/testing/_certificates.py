"""A certificate for the brokers' TLS listeners, made by the keytool of the Kafka image's own Java."""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass
from typing import Any

from . import _engine
from ._errors import ClusterError
from ._listeners import KEYSTORE_FILE

_AUTHORITY_FILE = "authority.pem"
# One self-signed certificate serves as the brokers' own and as the authority that clients trust.
_SCRIPT = f"""
set -e
mkdir /tmp/tls
cd /tmp/tls
keytool -genkeypair -alias broker -keyalg EC -groupname secp256r1 -dname CN=pooledkafka -validity 7 \\
    -ext san=ip:127.0.0.1,dns:localhost -ext bc:critical=ca:true -ext ku:critical=digitalSignature,keyCertSign \\
    -storetype PKCS12 -keystore {KEYSTORE_FILE} -storepass "$KEYSTORE_PASSWORD"
keytool -exportcert -rfc -alias broker -keystore {KEYSTORE_FILE} -storepass "$KEYSTORE_PASSWORD" > {_AUTHORITY_FILE}
"""


@dataclass(frozen=True)
class Certificates:
    """What brokers and clients need for TLS."""

    keystore: bytes  # PKCS12, for the brokers
    authority: bytes  # PEM, for kafka-python's ssl_cafile


def make_certificates(client: Any, image: str, run_id: str, password: str) -> Certificates:
    """Make a key and a certificate for 127.0.0.1, valid for a week. Takes about 2 s."""
    with _engine.translated_errors("make a certificate"):
        container = client.containers.create(
            image,
            entrypoint=["sh", "-c", _SCRIPT],
            environment={"KEYSTORE_PASSWORD": password},
            network_mode="none",
            labels={_engine.RUN_LABEL: run_id},
        )
        try:
            container.start()
            if status := container.wait()["StatusCode"]:
                output = container.logs().decode(errors="replace")
                raise ClusterError(f"keytool failed in the image {image} with status {status}:\n{output}")
            stream, _ = container.get_archive("/tmp/tls")
            archive = b"".join(stream)
        finally:
            container.remove(force=True, v=True)
    with tarfile.open(fileobj=io.BytesIO(archive)) as files:
        contents = {}
        for name in (KEYSTORE_FILE, _AUTHORITY_FILE):
            file = files.extractfile(f"tls/{name}")
            assert file is not None
            contents[name] = file.read()
    return Certificates(contents[KEYSTORE_FILE], contents[_AUTHORITY_FILE])
