"""The conformance examples of the variant calling operators."""
