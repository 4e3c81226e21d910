from __future__ import annotations

import django.utils.timezone
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = []

    operations = [
        migrations.CreateModel(
            name="HandledOffset",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("alias", models.CharField(max_length=100)),
                ("group_id", models.CharField(max_length=255)),
                ("topic", models.CharField(max_length=249)),
                ("partition", models.IntegerField()),
                ("next_offset", models.BigIntegerField()),
            ],
            options={
                "verbose_name": "handled offset",
                "constraints": [
                    models.UniqueConstraint(
                        fields=("alias", "group_id", "topic", "partition"), name="pooledkafka_handled_partition"
                    )
                ],
            },
        ),
        migrations.CreateModel(
            name="OutboxRecord",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("alias", models.CharField(default="default", max_length=100)),
                ("topic", models.CharField(max_length=249)),
                ("key", models.BinaryField(null=True)),
                ("value", models.BinaryField(null=True)),
                ("headers", models.JSONField(default=list)),
                ("partition", models.IntegerField(null=True)),
                ("created_at", models.DateTimeField(default=django.utils.timezone.now)),
            ],
            options={
                "verbose_name": "outbox record",
                "indexes": [models.Index(fields=["alias", "id"], name="pooledkafka_outbox_order")],
            },
        ),
    ]
