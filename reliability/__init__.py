"""Scenarios that prove the promises of docs/reliability.md; each is a command that prints its figures."""
