"""What ``make demo`` runs: ``pooledkafka demo``, with BOOTSTRAP and BACKEND from the environment.

Fifty consumers in fifty groups and five producers share one connection pool, on three embedded brokers, for which it
needs nothing but Python; with BACKEND=docker on Apache Kafka's, in containers that it starts and removes itself; with
BOOTSTRAP=host:port on a cluster that runs already.
"""

from __future__ import annotations

import os
import sys

from pooledkafka._cli import main

if __name__ == "__main__":
    arguments = ["demo", *sys.argv[1:]]
    if bootstrap := os.environ.get("BOOTSTRAP"):
        arguments += ["--bootstrap", bootstrap]
    if backend := os.environ.get("BACKEND"):
        if backend not in ("embedded", "docker"):
            print(f"BACKEND is {backend!r}; expected embedded or docker", file=sys.stderr)
            sys.exit(2)
        arguments += ["--backend", backend]
    sys.exit(main(arguments))
