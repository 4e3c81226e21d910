"""Those of the example, or, with ``SHOP_PRODUCER``, of the same views over stock kafka-python."""

from __future__ import annotations

import os

from shop.settings import *  # noqa: F403
from shop.settings import MIDDLEWARE

DEBUG = False
MIDDLEWARE = ["integration.servers.django_shop.answering.tells_its_process", *MIDDLEWARE]
if os.environ.get("SHOP_PRODUCER"):
    ROOT_URLCONF = "integration.servers.django_shop.stock"
