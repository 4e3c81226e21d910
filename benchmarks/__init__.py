"""What pooledkafka costs and what it saves, beside its peers: ``python -m benchmarks``; see README.md."""
