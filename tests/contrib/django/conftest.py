"""The tests of the Django app need a process with settings, which `tests/contrib/test_django.py` starts.

So they do not disturb the others: Django is set up once in a process, and so is its test environment.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

if os.environ.get("DJANGO_SETTINGS_MODULE") == "tests.contrib.django.settings":

    @pytest.fixture(autouse=True)
    def no_pools_left() -> Iterator[None]:
        from pooledkafka.contrib.django import pools

        yield
        pools.close_all()

else:
    collect_ignore_glob = ["test_*.py"]
