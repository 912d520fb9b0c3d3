"""The version of diffbio-alignment."""

__version__ = "0.1.0"
