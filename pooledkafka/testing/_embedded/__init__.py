"""A Kafka cluster in this process; the public name is ``pooledkafka.testing.EmbeddedKafka``.

Everything here runs on one thread, that of the event loop in ``loop_thread``, so no state has a lock. Only
``cluster.EmbeddedKafka`` is called from other threads, and it hands every call to the loop.
"""
