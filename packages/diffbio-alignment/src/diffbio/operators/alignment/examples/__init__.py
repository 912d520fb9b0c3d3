"""The conformance examples of the alignment operators."""
