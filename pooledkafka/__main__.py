"""``python -m pooledkafka``: the command line."""

from __future__ import annotations

import sys

from pooledkafka._cli import main

if __name__ == "__main__":
    sys.exit(main())
