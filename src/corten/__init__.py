"""Corten: a container engine in Python that Docker's own clients use unchanged."""

__version__ = "0.1.0"
