"""Views that write to the database and tell of it."""

from __future__ import annotations

from django.db import transaction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_POST

from orders.models import Order
from pooledkafka.contrib.django import outbox, producer


@require_POST
def place(request: HttpRequest) -> HttpResponse:
    """Write an order; the event is sent when it is committed, and lost if this process dies just then."""
    with transaction.atomic():
        order = Order.objects.create(item=request.POST["item"])
        producer.send_on_commit("orders.placed", {"id": order.pk, "item": order.item}, key=b"%d" % order.pk)
        if order.item == "unicorn":
            raise ValueError("there are no unicorns")  # no order, and no event of it
    return JsonResponse({"id": order.pk}, status=201)


@require_POST
def cancel(request: HttpRequest, order_id: int) -> HttpResponse:
    """Cancel an order; its event is in the database with it, and is sent by kafka_relay_outbox, whatever happens."""
    with transaction.atomic():
        order = get_object_or_404(Order.objects.select_for_update(), pk=order_id)
        order.cancelled = True
        order.save()
        outbox.add("orders.cancelled", {"id": order.pk}, key=b"%d" % order.pk)
    return JsonResponse({"id": order.pk})
