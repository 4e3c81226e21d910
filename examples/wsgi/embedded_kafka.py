"""Runs a command with three embedded brokers, which it finds in ``KAFKA_BOOTSTRAP``, and ends with it.

python embedded_kafka.py gunicorn app:app
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys

from pooledkafka.testing import EmbeddedKafka


def main(command: list[str]) -> int:
    if not command:
        print(__doc__, file=sys.stderr)
        return 2
    with EmbeddedKafka(brokers=3) as cluster:
        cluster.create_topic(os.environ.get("SHOP_TOPIC", "orders"), partitions=6)
        server = subprocess.Popen(command, env={**os.environ, "KAFKA_BOOTSTRAP": cluster.bootstrap_servers})
        # The brokers stay until the server has ended, in order: it hears Ctrl-C itself, and of the rest by this.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, lambda number, _: server.send_signal(number))
        return server.wait()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
