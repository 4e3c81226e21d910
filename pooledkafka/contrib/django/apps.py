"""The application, as Django sees it."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks
from django.core.signals import setting_changed

__all__ = ["PooledKafkaConfig"]


class PooledKafkaConfig(AppConfig):
    """Registers the system checks. Connects to nothing, starts nothing, and imports no handlers."""

    name = "pooledkafka.contrib.django"
    label = "pooledkafka"
    verbose_name = "Kafka"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from pooledkafka.contrib.django._checks import check_settings

        checks.register(check_settings, "pooledkafka")
        setting_changed.connect(_forget_pools, dispatch_uid="pooledkafka")


def _forget_pools(*, setting: str, **_: object) -> None:
    # override_settings in a test: what was made of the old settings is closed
    if setting == "POOLEDKAFKA":
        from pooledkafka.contrib.django import pools

        pools.close_all()
