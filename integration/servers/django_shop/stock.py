"""The view as one would write it with stock kafka-python: a KafkaProducer for each process, made at its first use."""

from __future__ import annotations

import json
import os
import threading
from typing import Any

from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path
from django.views.decorators.http import require_POST
from kafka import KafkaProducer
from orders.models import Order

_lock = threading.Lock()
_producer: Any = None  # set once, under _lock


def producer() -> Any:
    """The producer of this process, or what it has inherited."""
    global _producer  # noqa: PLW0603
    with _lock:
        if _producer is None:
            servers = os.environ["BOOTSTRAP"].split(",")
            _producer = KafkaProducer(bootstrap_servers=servers, client_id="shop", max_block_ms=5_000)
        return _producer


@require_POST
def place(request: HttpRequest) -> HttpResponse:
    """Write an order; the event is sent when it is committed."""
    with transaction.atomic():
        order = Order.objects.create(item=request.POST["item"])
        event = json.dumps({"id": order.pk, "item": order.item}).encode()
        transaction.on_commit(lambda: producer().send("orders.placed", event, key=b"%d" % order.pk))
    return JsonResponse({"id": order.pk}, status=201)


urlpatterns = [path("orders/", place)]
