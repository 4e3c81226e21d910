"""Integrations with frameworks; each needs its extra, and nothing else in the package imports them."""
