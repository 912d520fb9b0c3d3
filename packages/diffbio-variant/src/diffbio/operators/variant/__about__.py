"""The version of diffbio-variant."""

__version__ = "0.1.0"
