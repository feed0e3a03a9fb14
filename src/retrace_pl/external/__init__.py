"""Bring your own models: attacks on a pair that was not made here, from files, Python callables or HTTP endpoints."""
