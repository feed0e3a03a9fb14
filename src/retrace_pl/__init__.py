"""ReTrace: what can still be recovered from a model that was told to forget."""

from retrace_pl._version import __version__

__all__ = ["__version__"]
