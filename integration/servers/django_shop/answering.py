"""Says which process answers; and, with ``SHOP_IN_MASTER``, uses Kafka before a server that preloads this forks."""

from __future__ import annotations

import os
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse

from pooledkafka.contrib.django import producer

if os.environ.get("SHOP_IN_MASTER"):
    if os.environ.get("SHOP_PRODUCER"):
        from integration.servers.django_shop import stock

        stock.producer()
    else:
        producer["default"].producer().partitions_for("orders.placed")


def tells_its_process(answer: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """A middleware."""

    def answer_and_tell(request: HttpRequest) -> HttpResponse:
        response = answer(request)
        response["X-Process"] = str(os.getpid())
        return response

    return answer_and_tell
