"""The tables of the outbox and of exact handlers."""
