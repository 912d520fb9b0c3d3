"""The version of diffbio-core."""

__version__ = "0.1.0"
