"""A web application over a pool, and what the tests need to run it under the servers that people use."""
