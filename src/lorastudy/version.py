"""The version of this package, which every run records."""

__version__ = "0.3.0.dev0"
