"""Nothing here is there for Kafka: no hook is needed."""

preload_app = True
worker_class = "gthread"  # or sync
workers = 4
threads = 8
graceful_timeout = 20  # seconds, in which a worker that ends answers what it has, and its consumers leave their groups
