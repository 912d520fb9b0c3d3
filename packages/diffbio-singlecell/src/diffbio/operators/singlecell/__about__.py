"""The version of diffbio-singlecell."""

__version__ = "0.1.0"
