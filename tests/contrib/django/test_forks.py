"""One producer for the process that forks and for those that are forked, as with gunicorn's ``preload_app``."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import os

import django
from django.conf import settings
from kafka.structs import TopicPartition

from pooledkafka.testing import EmbeddedKafka

cluster = EmbeddedKafka(brokers=1)
cluster.open()
cluster.create_topic("orders")
settings.configure(
    INSTALLED_APPS=["pooledkafka.contrib.django"],
    POOLEDKAFKA={"default": {"bootstrap_servers": cluster.bootstrap_servers}},
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
)
django.setup()
from pooledkafka.contrib.django import pools, producer

producer.send("orders", b"parent").get(timeout=10)
children = []
for number in range(2):
    child = os.fork()
    if not child:
        producer.send("orders", b"child %d" % number).get(timeout=10)
        producer.send_on_commit("orders", b"child %d, on commit" % number)
        pools.close_all()
        os._exit(0)
    children.append(child)
assert [os.waitpid(child, 0)[1] for child in children] == [0, 0]
producer.send("orders", b"parent again").get(timeout=10)
with pools.alias("default").consumer() as consumer:
    partition = TopicPartition("orders", 0)
    consumer.assign([partition])
    consumer.seek_to_beginning()
    values = []
    while len(values) < consumer.end_offsets([partition])[partition]:
        values += [record.value.decode() for record in consumer.poll(10_000).get(partition, [])]
pools.close_all()
cluster.close()
print(sorted(values))
"""


def test_each_process_sends_its_own_records_once() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    sent = ["child 0", "child 0, on commit", "child 1", "child 1, on commit", "parent", "parent again"]
    assert done.stdout == f"{sent}\n"
